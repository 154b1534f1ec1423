"""Calibration by a pool: chunks of hold-out prompts are computed anywhere and merged in their order, exactly as in one process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from findnemo.calibration import Calibration, Chunk, Group, Parts, calibrate, groups_of
from findnemo.errors import DeviceError
from findnemo.models import Model
from findnemo.runs.workers import Pool, Serial, in_order
from findnemo.settings import Settings


def calibrate_with(pool: Pool, prompts: Iterable[str], **options: Any) -> Calibration:
    """`findnemo.calibrate` by a pool; the same to the last bit. Options as there.

    Raises DeviceError where workers die over the same prompts again and again: no calibration is made without them.
    """
    return calibrate(pool.model, prompts, parts=None if isinstance(pool, Serial) else parts_of(pool), **options)


def parts_of(pool: Pool) -> Parts:
    """What computes the parts of a calibration."""

    def parts(settings: Settings, chunks: Iterator[Chunk]) -> Iterator[list[Group]]:
        for event in in_order(pool, partial(computed, settings=settings), chunks):
            if event.aside:
                first = event.unit.items[0].prompts[0]
                raise DeviceError(
                    f"the {len(event.unit.items[0].prompts)} hold-out prompts from {first[:60]!r} on: {event.aside}"
                )
            yield event.answers[0]

    return parts


def computed(model: Model, items: Sequence[Chunk], settings: Settings) -> list[list[Group]]:
    """The step: a list of groups for every chunk."""
    return [list(groups_of(model, chunk, settings)) for chunk in items]
