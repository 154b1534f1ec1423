"""One way to work through a stage: what is open goes to a pool, what becomes known is committed,
whoever listens is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from findnemo.runs.workers import Dispatch, Event, Pool, Step, Unit, drive_together, never

Progress = Callable[[str, int, int], None]  # stage, done, total


def no_progress(stage: str, done: int, total: int) -> None:
    """The `progress` of work that nobody watches."""


@dataclass(frozen=True)
class Stage:
    """`step`: what a worker does with the items of a unit.

    `units`: `count` of them, in the order in which they shall be begun.

    `commit`: writes what became known at one time, and says how many of `total` that were. `done`:
    how many were before.
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
    """Have a pool answer all units of a stage, or those that are begun before `stop()` is true;
    how many of its total are done.
    """
    done = stage.done
    progress(stage.name, done, stage.total)
    dispatch = Dispatch(stage.units, stage.count, pool.size, pool.aim)
    for events in drive_together(pool, stage.step, dispatch, stop):
        done += stage.commit(events)
        progress(stage.name, done, stage.total)
    return done
