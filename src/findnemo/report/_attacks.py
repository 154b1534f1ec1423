"""The parts of the report on attempts and attacks on the edited model, and on hardening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from findnemo.report import _charts as charts
from findnemo.report._text import ALIGNMENT, NONE, PIXELS, interval, minus, number, percent
from findnemo.runs.evidence import counted, labelled

SIDE_EFFECTS = {
    "pixel_change": PIXELS,
    "sscd_gen": "SSCD_gen: images against the untouched model's of the same seeds",
    "a_clip": ALIGNMENT,
    "fid": "Fréchet distance to untouched images of other seeds (descriptor)",
    "kid": "KID, likewise",
}

Cell = tuple[str, str]  # a value, and its interval in words


def attack(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An attack on the edited model (`runs.robustness`) as charts and a table; None if the run has
    no curve.

    The table has a row for each curve or gap: its name, whether it is a gap, and a value with its
    interval for each step.
    """
    if not found or not any(found["curves"].values()):
        return None
    found = labelled(found)
    lines = [
        (name, is_gap, {x: point for x, *point in points})
        for is_gap, group in ((False, bounded(found)), (True, found.get("gaps") or {}))
        for name, points in group.items()
    ]
    steps = sorted({x for _, _, line in lines for x in line})
    rows = [(name, is_gap, [_cell(line.get(x)) for x in steps]) for name, is_gap, line in lines]
    about = {name: found.get(name) for name in ("x", "y", "n", "known")}
    table = {"steps": [f"{x:g}" for x in steps], "rows": rows}
    return charts.curves(found) | about | table | {"gaps": charts.gaps(found)}


def bounded(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float, Any, Any]]]:
    """Curve -> (step, value, low, high) of its points, the last two None without an interval."""
    bands = found.get("bands") or {}
    curves = {}
    for name, line in found["curves"].items():
        ends = {x: (low, high) for x, low, high in bands.get(name, ())}
        curves[name] = [(x, y, *ends.get(x, (None, None))) for x, y in line]
    return curves


def _cell(point: Sequence[float | None] | None) -> Cell:
    """A value with its interval; a dash for None."""
    if point is None:
        return NONE, ""
    value, low, high = point
    return number(value), interval(low, high)


def attempts(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Ordinary attempts: a row for each, with the share of captions of which each column gave a
    copy, and its interval.

    For an edited model, only captions for which the attempt works on the untouched model count.
    """
    if not found or not found["table"]:
        return None
    columns = found["columns"]
    rows = [
        (name, [_copies(row.get(column)) for column in columns])
        for name, row in found["table"].items()
    ]
    return {"columns": columns, "rows": rows}


def _copies(share: Mapping[str, float] | None) -> Cell:
    if share is None:
        return NONE, ""
    told = counted(share)
    if told is None:
        return "tells nothing", ""
    ends = interval(told["low"], told["high"], percent)
    return f"{told['back']:.0f} of {told['works']:.0f}", ends


def hardened(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What hardening does to ordinary captions: a row for each figure, a column for each model."""
    if not found:
        return None
    quality = found["quality"]
    rows = [
        (label, [_with_ends(figures.get(key)) for figures in quality.values()])
        for key, label in SIDE_EFFECTS.items()
        if any(key in figures for figures in quality.values())
    ]
    return {
        "models": list(quality),
        "rows": rows,
        "prompts": found["prompts"],
        "images": found["images"],
    }


def _with_ends(value: Sequence[float] | None) -> Cell:
    if not value:
        return NONE, ""
    middle, *ends = value
    return minus(f"{middle:.3g}"), interval(ends[0], ends[1]) if len(ends) == 2 else ""
