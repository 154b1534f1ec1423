"""What the report says of attempts and attacks on the edited model, and of hardening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from findnemo.report import _charts as charts
from findnemo.report._text import NONE, number, percent


def attack(found: Any) -> dict[str, Any] | None:
    """Curves of an attack on the edited model, if the run holds them: {"x", "y", "n", "curves": {name: [[x, y], ...]}}, `bands` and `gaps`."""
    if not found or not any(found["curves"].values()):
        return None
    told = {"x": found["x"], "y": found["y"], "n": found["n"], "known": found.get("known")}
    steps, rows = _steps_table(found)
    return charts.curves(found) | told | {"steps": steps, "rows": rows, "gaps": charts.gaps(found)}


def _steps_table(attack: Any) -> tuple[list[str], list[tuple[str, bool, list[tuple[str, str]]]]]:
    """Steps; and name, whether it is a gap, and a value with its interval a step, for each curve and gap."""
    bands = attack.get("bands") or {}
    curves = {
        name: {x: (y, *ends.get(x, (None, None))) for x, y in line}
        for name, line in attack["curves"].items()
        for ends in [{x: (low, high) for x, low, high in bands.get(name, ())}]
    }
    gaps = {
        name: {x: tuple(told) for x, *told in points}
        for name, points in (attack.get("gaps") or {}).items()
    }
    steps = sorted({x for line in [*curves.values(), *gaps.values()] for x in line})
    rows = [
        (name, is_gap, [_bounded(*line[x]) if x in line else (NONE, "") for x in steps])
        for is_gap, group in ((False, curves), (True, gaps))
        for name, line in group.items()
    ]
    return [f"{x:g}" for x in steps], rows


def _bounded(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    """A value, and its interval in words."""
    return number(value), "" if low is None or high is None else f"{number(low)} to {number(high)}"


def attempts(found: Any) -> dict[str, Any] | None:
    """Ordinary attempts: a row each, with the share of captions of which each column gave a copy, and its interval."""
    if not found or not found["table"]:
        return None
    columns = found["columns"]
    rows = [
        (name, [_copies(row.get(column)) for column in columns])
        for name, row in found["table"].items()
    ]
    return {"columns": columns, "rows": rows}


def _copies(found: dict[str, float] | None) -> tuple[str, str]:
    if found is None:
        return NONE, ""
    return (
        f"{found['captions']:.0f} of {found['n']:.0f}",
        f"{percent(found['low'])} to {percent(found['high'])}",
    )


SIDE_EFFECTS = {
    "pixel_change": "Change of pixels, of 1",
    "sscd_gen": "SSCD_gen: images against the untouched model's of the same seeds",
    "a_clip": "A_CLIP: fit with the caption",
    "fid": "Fréchet distance to untouched images of other seeds (descriptor)",
    "kid": "KID, likewise",
}


def hardened(found: Any) -> dict[str, Any] | None:
    """What hardening does to ordinary captions: a row a figure, a column a model."""
    if not found:
        return None
    models = list(found["quality"])
    rows = [
        (label, [_with_ends(found["quality"][model].get(key)) for model in models])
        for key, label in SIDE_EFFECTS.items()
        if any(key in found["quality"][model] for model in models)
    ]
    return {"models": models, "rows": rows, "prompts": found["prompts"], "images": found["images"]}


def _with_ends(value: Sequence[float] | None) -> tuple[str, str]:
    if not value:
        return NONE, ""
    middle, *ends = value
    return f"{middle:.3g}".replace("-", "\u2212"), f"{number(ends[0])} to {number(ends[1])}" if len(
        ends
    ) == 2 else ""
