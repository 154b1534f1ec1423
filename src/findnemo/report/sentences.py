"""What attempts and attacks say, in plain sentences.

Pure functions on the summaries that a run keeps (`findnemo.runs.robustness`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GIVEN = "image to image"  # attempts that start from the picture itself
ORDINARY = "ordinary, "
UNTOUCHED = "untouched"
CONTROLS = {  # end of a gap's name -> what the control is
    ": memorized less never seen": "pictures never seen",
    ": memorized less mirrored": "mirrored images of ordinary captions",
}
OFF = "neurons off"
QUIET = (
    "No prompt that was tried brought a picture back from the model with neurons off; that is no"
    " proof for others."
)
WEIGHTS = (
    "Removing neurons does not protect weights that are given away against somebody who already has"
    " the picture."
)


def sentences(attempts: Mapping[str, Any] | None, attack: Mapping[str, Any] | None) -> list[str]:
    """What was tried and what came of it, a sentence for each model; last what that means.

    Empty where nothing was tried.

    >>> sentences(None, {"curves": {}, "gaps": {"neurons off: memorized less never seen": [[5, 0.5, 0.2, 0.8]]}})[0][-64:]
    'pictures never seen: the gap is 0.50 [0.20, 0.80] after 5 steps.'
    """
    attempts = attempts or {"columns": [], "table": {}}
    outcome = [*_attempts(attempts), *_attacks(attack or {})]
    prompts = _prompts(attempts["table"], OFF)
    quiet = [QUIET] if prompts and not any(cell["captions"] for cell in prompts.values()) else []
    return [*outcome, *quiet, WEIGHTS] if outcome else []


def _with(state: str) -> str:
    """
    >>> _with("neurons off"), _with("hardened")
    ('With neurons off', 'After hardening')
    """
    return "After hardening" if state == "hardened" else f"With {state}"


def _attempts(attempts: Mapping[str, Any]) -> list[str]:
    states = [c for c in attempts["columns"] if not c.startswith(ORDINARY) and c != UNTOUCHED]
    return [
        line
        for state in states
        for line in (_words(attempts["table"], state), _given(attempts["table"], state))
        if line
    ]


def _prompts(table: Mapping[str, Mapping[str, Any]], state: str) -> dict[str, Any]:
    """The attempts that are not given the picture."""
    return {
        name: columns[state]
        for name, columns in table.items()
        if state in columns and not name.startswith(GIVEN)
    }


def _words(table: Mapping[str, Mapping[str, Any]], state: str) -> str:
    """Of attempts that are not given the picture: how many give copies, and the
    one that gives the most.
    """
    found = _prompts(table, state)
    if not found:
        return ""
    what = (
        f"{_with(state)}, {{}} of {len(found)} attempts with other seeds, samplers, steps,"
        " guidance, words and tokens give"
    )
    hits = {name: cell for name, cell in found.items() if cell["captions"]}
    if not hits:
        most = max(cell["n"] for cell in found.values())
        high = 100 * max(cell["high"] for cell in found.values())
        able = sum(table[name].get(UNTOUCHED, {}).get("captions", 0) > 0 for name in found)
        return (
            f"{what.format('none')} a copy of any of {most:.0f} pictures ({able} do with no neuron"
            f" off; 95 %: fewer than {high:.0f} % of pictures, each)."
        )
    name, cell = max(hits.items(), key=lambda pair: pair[1]["captions"] / pair[1]["n"])
    return f"{what.format(len(hits))} copies; the most has {name!r}, of {_of(cell)} pictures."


def _of(cell: Mapping[str, float]) -> str:
    return f"{cell['captions']:.0f} of {cell['n']:.0f}"


def _given(table: Mapping[str, Mapping[str, Any]], state: str) -> str:
    """Image to image at the strength that leaves least of the picture, beside ordinary captions."""
    rows = [
        (name, columns)
        for name, columns in table.items()
        if name.startswith(GIVEN) and state in columns
    ]
    if not rows:
        return ""
    strength, columns = rows[-1]
    beside = columns.get(ORDINARY + state)
    ordinary = "" if beside is None else f", and {_of(beside)} of ordinary captions"
    return (
        f"{strength.capitalize()}, which is given the picture, gives {_of(columns[state])}"
        f" back{ordinary}."
    )


def _attacks(attack: Mapping[str, Any]) -> list[str]:
    return [
        _attacked(name.removesuffix(end), control, points)
        for name, points in attack.get("gaps", {}).items()
        for end, control in CONTROLS.items()
        if name.endswith(end)
    ]


def _attacked(state: str, control: str, points: Sequence[Sequence[float | None]]) -> str:
    """Whether memorized pictures come nearer than a control: at every step, the start among
    them, not at the one that shows it best.
    """
    bounded = [p for p in points if p[2] is not None]
    if not bounded:
        return (
            f"{_with(state)}, gaps to {control} have no interval ({_listed(points)}): too few"
            " captions to tell anything."
        )
    above = any(p[0] and p[2] > 0 for p in bounded)  # type: ignore[operator]
    come = "come" if above else "are not seen to come"
    return (
        f"{_with(state)}, embeddings optimised for memorized pictures {come} nearer to them than to"
        f" {control}: {_listed(bounded)}."
    )


def _listed(points: Sequence[Sequence[float | None]]) -> str:
    """The gaps of a curve in words.

    >>> _listed([[0, 0.0, -0.1, 0.1], [5, 0.5, 0.25, 0.75], [10, 0.25, None, None]])
    'the gap is 0.00 [-0.10, 0.10] at the start, 0.50 [0.25, 0.75] after 5 steps, 0.25 after 10 steps'
    """
    parts = []
    for step, gap, low, high in points:
        ends = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        parts.append(f"{gap:.2f}{ends} {f'after {step:g} steps' if step else 'at the start'}")
    return f"the gap is {', '.join(parts)}"
