"""Whom a task tells of what it does, and who may stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from findnemo.runs.stages import Progress, no_progress
from findnemo.runs.workers import never
from findnemo.runtime.notices import notice


def silent(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Listener:
    """`progress(stage, done, total)`, `say(text)` of what begins, `warn(text)` of what a user
    should know, `stop()` between pieces of work, `passed(latents)` before each pass of the denoiser
    in this process, with how many go into it.

    Once `stop` says so nothing more is begun, and a task returns with what it has: the same call
    goes on.
    """

    progress: Progress = no_progress
    say: Callable[[str], None] = silent
    warn: Callable[[str], None] = notice
    stop: Callable[[], bool] = never
    passed: Callable[[int], None] | None = None
