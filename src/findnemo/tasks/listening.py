"""How a task reports its work, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from findnemo.runs.stages import Progress, no_progress
from findnemo.runs.workers import never
from findnemo.runtime.notices import notice


def silent(text: str) -> None:
    """Ignore a text."""


@dataclass(frozen=True)
class Listener:
    """Callbacks of a task.

    `progress(stage, done, total)`. `say(text)`: what begins. `warn(text)`: what a user should know.
    `stop()`: called between pieces of work; once it returns True nothing more is begun, and the
    task returns what it has. The same call then continues. `passed(latents)`: called before each
    pass of the denoiser in this process, with the number of latents in it.
    """

    progress: Progress = no_progress
    say: Callable[[str], None] = silent
    warn: Callable[[str], None] = notice
    stop: Callable[[], bool] = never
    passed: Callable[[int], None] | None = None
