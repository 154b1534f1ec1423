"""Calibration by a pool of workers.

Workers compute chunks of hold-out prompts, which are merged in order, exactly as in one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count

from findnemo.calibration import Calibration, Chunk, Group, Parts, Rule, calibrate_in, groups_of
from findnemo.errors import DeviceError, InputError
from findnemo.models import Model
from findnemo.runs.stages import Progress, no_progress
from findnemo.runs.store import Run
from findnemo.runs.workers import Pool, Serial, in_order, never
from findnemo.settings import Settings, settings_for

RESCORE = "calibrate with the paper's score"  # the stage of `as_published`


def calibrate_with(
    pool: Pool,
    folder: str | os.PathLike,
    prompts: Iterable[str],
    settings: Settings,
    rule: Rule = Rule(),
    progress: Callable[[str], None] = lambda prompt: None,
    stop: Callable[[], bool] = never,
) -> Calibration:
    """Calibrate as `findnemo.calibration.calibrate_in` does, with a pool; the result is the same to
    the last bit.

    Raises DeviceError where workers die again and again on one chunk of prompts: there is no
    calibration without that chunk.
    """
    parts = None if isinstance(pool, Serial) else parts_of(pool)
    return calibrate_in(folder, pool.model, prompts, settings, rule, progress, parts, stop)


def as_published(
    run: Run, pool: Pool, calibration: Calibration, progress: Progress = no_progress
) -> Calibration:
    """The calibration that makes NeMo what the paper describes.

    It is the run's own if that uses the paper's score, else one with that score. Its threshold
    (mean + 1 std) comes from the hold-out prompts of the run's calibration, its activation
    statistics are the run's. It is computed once and kept in RUN/calibration-paper.

    Raises InputError where the calibration keeps fewer than two prompts.
    """
    if calibration.settings.pairs == "largest":
        return calibration
    folder = run.path / "calibration-paper"
    settings = settings_for("paper", calibration.settings.seed)
    with suppress(InputError):  # missing or damaged: compute it
        kept = Calibration.load(folder)
        is_same = (kept.model, kept.prompts) == (calibration.model, calibration.prompts)
        if is_same and kept.settings == settings:
            return kept
    prompts = calibration.ordinary
    done = count(1)
    progress(RESCORE, 0, len(prompts))

    def scored(prompt: str) -> None:
        progress(RESCORE, next(done), len(prompts))

    rescored = calibrate_with(pool, folder, prompts, settings, Rule(precision=None), scored)
    names = ("mean", "std", "count", "prompts", "ordinary")
    published = replace(rescored, **{name: getattr(calibration, name) for name in names})
    published.save(folder)
    return published


def parts_of(pool: Pool) -> Parts:
    """A function that computes the parts of a calibration with a pool."""

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
    """The step of a worker: a list of groups for every chunk."""
    return [list(groups_of(model, chunk, settings)) for chunk in items]
