"""The catalogue of studies: every table and figure of the paper, and what a run has for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from findnemo import demo
from findnemo.calibration import Calibration
from findnemo.metrics.kind import is_memory
from findnemo.runs.compare import localized_captions
from findnemo.runs.standing import switched_off
from findnemo.runs.store import Run
from findnemo.studies.registry import NEEDS, STUDIES, WORK, StudyEntry
from findnemo.studies.table import Cell, Table


def stock(
    run: Run,
    calibration: Calibration,
    judges: Collection[str],
    ordinary: Sequence[str],
    others: Sequence[str],
    pictures: int,
) -> dict[str, int]:
    """How many a run has of everything in NEEDS.

    `judges`: which of "descriptor" and "clip" are available. `ordinary`: captions known not to be
    memorized. `others`: captions used in their place. `pictures`: number of reference pictures.
    """
    captions = list(run.captions())
    localized = localized_captions(captions)
    shipped = run.meta("source") in demo.MODELS
    return {
        "neurons": len(localized),
        "neurons off": sum(len(switched_off(caption)) > 0 for caption in localized),
        "types": sum(is_memory(c.type) for c in captions),
        "others": len(others),
        "ordinary": len(ordinary),
        "hold-out scores": len(calibration.scores),
        "training images": sum(bool(c.image) or (shipped and is_memory(c.type)) for c in captions),
        "descriptor": int("descriptor" in judges),
        "reference pictures": pictures,
        "CLIP": int("clip" in judges),
    }


def catalogue(have: Mapping[str, int] | None = None) -> Table:
    """A table with a line for each study in the order of the paper: what it shows, needs and
    computes.

    With `have`, the `stock` of a run, also what is missing or will be left out.
    """
    heads = ["study", "of the paper", "shows", "computes", "needs", "if there"]
    rows: list[list[Cell]] = []
    for entry in STUDIES.values():
        asked = [", ".join(keys) or None for keys in (entry.work, entry.needs, entry.uses)]
        row: list[Cell] = [entry.name, entry.shows or None, entry.title, *asked]
        rows.append(row if have is None else [*row, _state(entry, have)])
    legend = [
        f"{key}: {need.label}{'' if have is None else f', {have[key]} in this run'} ({need.source})"
        for key, need in NEEDS.items()
    ]
    legend += [f"{key}: {means}" for key, means in WORK.items()]
    heads = heads if have is None else [*heads, "this run"]
    return Table("Studies", heads, rows, "; ".join(legend) + ".")


def _state(entry: StudyEntry, have: Mapping[str, int]) -> str:
    """`ready`, what will be left out, or what is missing."""
    if missing := entry.lacks(have, entry.needs):
        return f"lacks {', '.join(missing)}"
    if without := entry.lacks(have, entry.uses):
        return f"ready, without {', '.join(without)}"
    return "ready"
