"""Calibration by a pool: chunks of hold-out prompts are computed anywhere and merged in their
order, exactly as in one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from findnemo.calibration import Calibration, Chunk, Group, Parts, Rule, calibrate_in, groups_of
from findnemo.errors import DeviceError, InputError
from findnemo.models import Model
from findnemo.runs.store import Run
from findnemo.runs.workers import Pool, Serial, in_order, never
from findnemo.settings import Settings, settings_for


def calibrate_with(
    pool: Pool,
    folder: str | os.PathLike,
    prompts: Iterable[str],
    settings: Settings,
    rule: Rule = Rule(),
    progress: Callable[[str], None] = lambda prompt: None,
    stop: Callable[[], bool] = never,
) -> Calibration:
    """`findnemo.calibration.calibrate_in` by a pool; the result is the same to the last bit.

    Raises DeviceError where workers die over one chunk of prompts again and again: no calibration
    is made without them.
    """
    parts = None if isinstance(pool, Serial) else parts_of(pool)
    return calibrate_in(folder, pool.model, prompts, settings, rule, progress, parts, stop)


def as_published(run: Run, pool: Pool, calibration: Calibration) -> Calibration:
    """The calibration by which NeMo is what the paper says: the run's own, or, where that is
    findnemo's, one with the paper's score.

    Its threshold (mean + 1 std) is of the hold-out prompts that the calibration keeps, its
    activation statistics are the run's. It is made once, and kept in RUN/calibration-paper. Raises
    InputError where the calibration keeps fewer than two prompts.
    """
    if calibration.settings.pairs == "largest":
        return calibration
    folder = run.path / "calibration-paper"
    settings = settings_for("paper", calibration.settings.seed)
    with suppress(InputError):  # none there yet, or damaged: it is made again
        kept = Calibration.load(folder)
        is_same = (kept.model, kept.prompts) == (calibration.model, calibration.prompts)
        if is_same and kept.settings == settings:
            return kept
    rescored = calibrate_with(pool, folder, calibration.ordinary, settings, Rule(precision=None))
    names = ("mean", "std", "count", "prompts", "ordinary")
    published = replace(rescored, **{name: getattr(calibration, name) for name in names})
    published.save(folder)
    return published


def parts_of(pool: Pool) -> Parts:
    """What computes the parts of a calibration."""

    def parts(settings: Settings, chunks: Iterator[Chunk]) -> Iterator[list[Group]]:
        for event in in_order(pool, partial(computed, settings=settings), chunks):
            if event.aside:
                first = event.unit.items[0].prompts[0]
                raise DeviceError(
                    f"the {len(event.unit.items[0].prompts)} hold-out prompts from {first[:60]!r}"
                    f" on: {event.aside}"
                )
            yield event.answers[0]

    return parts


def computed(model: Model, items: Sequence[Chunk], settings: Settings) -> list[list[Group]]:
    """The step: a list of groups for every chunk."""
    return [list(groups_of(model, chunk, settings)) for chunk in items]
