"""Work through a stage: send open items to a pool, commit the results, and report progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from findnemo.runs.workers import Dispatch, Event, Pool, Step, Unit, drive_together, never

Progress = Callable[[str, int, int], None]  # stage, done, total


def no_progress(stage: str, done: int, total: int) -> None:
    """A `progress` that ignores what it is told."""


class Crew(NamedTuple):
    """Who works through stages: the workers, what hears of progress, and what asks to stop."""

    pool: Pool
    progress: Progress
    stop: Callable[[], bool]


@dataclass(frozen=True)
class Stage:
    """A stage of work.

    `step`: what a worker does with the items of a unit. `units`: an iterator of `count` units, in
    the order in which to begin them. `commit`: writes results that become known together, and
    returns how many of `total` they are. `done`: how many of `total` were done before.
    """

    name: str
    step: Step
    units: Iterable[Unit]
    count: int
    commit: Callable[[Sequence[Event]], int]
    total: int
    done: int = 0


def run_stage(
    stage: Stage, pool: Pool, progress: Progress = no_progress, stop: Callable[[], bool] = never
) -> int:
    """Have a pool answer all units of a stage that it begins before `stop()` returns True; return
    how many of its total are done.
    """
    done = stage.done
    progress(stage.name, done, stage.total)
    dispatch = Dispatch(stage.units, stage.count, pool.size, pool.aim)
    for events in drive_together(pool, stage.step, dispatch, stop):
        done += stage.commit(events)
        progress(stage.name, done, stage.total)
    return done
