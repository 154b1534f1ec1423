"""The results of attempts and attacks in plain sentences.

All functions are pure, on the summaries that a run keeps (`findnemo.runs.robustness`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from findnemo.report._text import count
from findnemo.runs.evidence import EMBEDDING, GIVEN, OFF, AttemptVerdict, prompts_of

ORDINARY = "ordinary, "
CONTROLS = {  # end of a gap's name -> what the control is
    ": memorized less never seen": "pictures never seen",
    ": memorized less mirrored": "mirrored images of ordinary captions",
}
EARLIER = (
    "What was tried was kept without its positive controls, by an earlier findnemo: it tells"
    " nothing. `findnemo verify` makes up for it."
)
WEIGHTS = (
    "Removing neurons does not protect weights that are given away against somebody who already has"
    " the picture."
)
ATTACKED = "attacked for which the attack"
PROMPTS = "other seeds, samplers, steps, guidance, words and tokens"


def sentences(attempts: Mapping[str, Any] | None, attack: Mapping[str, Any] | None) -> list[str]:
    """What was tried and its result, a sentence for each model; the last one says what that means.

    Each states how many captions were tried. An attempt without a copy on the untouched model tells
    nothing. Empty if nothing was tried.

    >>> told = {"n": 3, "works": 3, "back": 1, "beyond": 0, "silent": [], "low": 0.06, "high": 0.79}
    >>> sentences(None, {"curves": {}, "told": {"neurons off": told}})[0].partition("copy of ")[2]
    '1 of the 3 captions attacked for which the attack works on the untouched model (95 %: 6 to 79 %).'
    """
    outcome = [*_attempts(attempts or {}), *_attacks(attack or {})]
    return [*dict.fromkeys(outcome), WEIGHTS] if outcome else []


def _with(state: str) -> str:
    """
    >>> _with("neurons off"), _with("hardened")
    ('With neurons off', 'After hardening')
    """
    return "After hardening" if state == "hardened" else f"With {state}"


def of_caption(found: Mapping[str, Mapping[str, AttemptVerdict]]) -> list[str]:
    """What was tried on one caption, a line for each model. `found`: `verdicts` of the caption.

    >>> of_caption({"neurons off": {"optimized embedding": AttemptVerdict("tells nothing", 0.1, 0.17)}})
    ['With neurons off: the attack tells nothing: on the untouched model it gives no copy either: 0.17.']
    """
    return [f"{_with(state)}: {'; '.join(_parts(every))}." for state, every in found.items()]


def _parts(every: Mapping[str, AttemptVerdict]) -> Iterator[str]:
    words = prompts_of(every)
    if words:
        works = [one for one in words if one.works]
        back = sum(one.word == "back" for one in works)
        silent = sum(one.word == "tells nothing" for one in words)
        yield (
            f"{back} of {len(works)} attempts that work on the untouched model give a copy"
            + (f", {silent} more tell nothing" if silent else "")
        )
    if attack := every.get(EMBEDDING):
        nothing = " tells nothing" if attack.word == "tells nothing" else ""
        yield f"the attack{nothing}: {attack.why}"


# attempts -----------------------------------------------------------------------------------------


def _attempts(attempts: Mapping[str, Any]) -> list[str]:
    table = attempts.get("table") or {}
    told: dict[str, dict[str, Any]] = {}
    for name, columns in table.items():
        for column, cell in columns.items():
            if "told" in cell:
                told.setdefault(column, {})[name] = cell["told"]
    if not told:
        return [EARLIER] * any(OFF in columns for columns in table.values())
    return [
        line
        for state, every in told.items()
        for line in (
            *_words(state, _part(every, lambda name, _: not name.startswith(GIVEN))),
            *_given(table, state, every),
        )
    ]


def _part(
    every: Mapping[str, dict[str, Any]], holds: Callable[[str, dict[str, Any]], Any]
) -> dict[str, dict[str, Any]]:
    return {name: cell for name, cell in every.items() if holds(name, cell)}


def _words(state: str, every: Mapping[str, dict[str, Any]]) -> list[str]:
    """Sentences on attempts that are not given the picture: how many give copies, how many tell
    nothing.
    """
    if not every:
        return []
    works = _part(every, lambda _, cell: cell["works"])
    beyond = _part(every, lambda _, cell: cell["beyond"])
    silent = _part(every, lambda _, cell: not cell["works"] and cell["silent"])
    most = max(cell["n"] for cell in every.values())
    lines = [_working(state, works, most)] if works else []
    if beyond:
        lines.append(
            f"{_with(state)}, {len(beyond)} of {len(every)} attempts give copies of captions of"
            " which they give none on the untouched model."
        )
    if silent:
        nearest = max((v for c in silent.values() for v in c["silent"] if v is not None), default=0)
        lines.append(
            f"{len(silent)} of {len(every)} attempts tell nothing: on the untouched model they give"
            f" no copy of the {count(most, 'caption')} tried either (similarity at most"
            f" {nearest:.2f})."
        )
    if works and not beyond and not any(cell["back"] for cell in works.values()):
        lines.append(
            "No prompt that brings a picture back from the untouched model brought one back"
            f" {_state(state)}, of the {count(most, 'caption')} tried; that is no proof for"
            " other captions or prompts."
        )
    return lines


def _state(state: str) -> str:
    return "after hardening" if state == "hardened" else f"with {state}"


def _working(state: str, works: Mapping[str, dict[str, Any]], most: int) -> str:
    """The result of attempts that work on the untouched model; if some give copies, the one with
    the most.
    """
    hits = _part(works, lambda _, cell: cell["back"])
    if not hits:
        of = sorted({cell["works"] for cell in works.values()})
        each = f"{of[0]} to {of[-1]}" if len(of) > 1 else f"{of[0]}"
        ends = [cell["high"] for cell in works.values()]
        return (
            f"{_with(state)}, none of {count(len(works), 'attempt')} with {PROMPTS} gives a copy of"
            f" a caption for which it works on the untouched model ({each} of the"
            f" {count(most, 'caption')} tried, each; 95 %: fewer than {100 * max(ends):.0f} %)."
        )
    name, cell = max(hits.items(), key=lambda pair: pair[1]["back"] / pair[1]["works"])
    return (
        f"{_with(state)}, {len(hits)} of {len(works)} attempts with {PROMPTS} give copies;"
        f" the most has {name!r}, of {_of(cell)}."
    )


def _of(cell: Mapping[str, Any], what: str = "tried for which it") -> str:
    """
    >>> _of({"back": 1, "works": 3})
    '1 of the 3 captions tried for which it works on the untouched model'
    """
    captions = count(cell["works"], "caption")
    return f"{cell['back']} of the {captions} {what} works on the untouched model"


def _given(
    table: Mapping[str, Mapping[str, Any]], state: str, every: Mapping[str, dict[str, Any]]
) -> list[str]:
    """Image to image at the strength that leaves least of the picture, compared with ordinary
    captions.
    """
    given = _part(every, lambda name, _: name.startswith(GIVEN))
    if not given:
        return []
    strength, cell = list(given.items())[-1]
    if not cell["works"]:
        return [
            f"{strength.capitalize()}, which is given the picture, tells nothing: it gives no copy"
            f" on the untouched model of the {count(cell['n'], 'caption')} tried."
        ]
    beside = table[strength].get(ORDINARY + state)
    ordinary = (
        ""
        if beside is None
        else f", and {beside['captions']:.0f} of {beside['n']:.0f} of ordinary captions"
    )
    return [
        f"{strength.capitalize()}, which is given the picture, gives back {_of(cell)}{ordinary}."
    ]


# the attack ---------------------------------------------------------------------------------------


def _attacks(attack: Mapping[str, Any]) -> list[str]:
    if "told" not in attack:
        return [EARLIER] * any((attack.get("curves") or {}).values())
    gaps = attack.get("gaps") or {}
    return [
        line
        for state, told in attack["told"].items()
        for line in (*_optimized(state, told), *_beside(state, gaps))
    ]


def _optimized(state: str, told: Mapping[str, Any]) -> list[str]:
    """On how many captions the attack gives a copy, and on how many it tells nothing."""
    lines = []
    if told["works"]:
        ends = f"{100 * told['low']:.0f} to {100 * told['high']:.0f} %"
        copied, of = told.get("never") or (0, 0)
        never = f"; of pictures never seen, of {copied} of {of}" if of else ""
        lines.append(
            f"{_with(state)}, an optimized embedding gives a copy of {_of(told, ATTACKED)}"
            f" (95 %: {ends}){never}."
        )
    if told["beyond"]:
        lines.append(
            f"{_with(state)}, it gives a copy of {count(told['beyond'], 'caption')} of which it"
            " gives none on the untouched model."
        )
    if told["silent"]:
        silent = count(len(told["silent"]), "caption")
        near = [f"{value:.2f}" for value in told["silent"] if value is not None]
        why = (
            f"on the untouched model it gives no copy either ({', '.join(near)})"
            if near
            else "it was not tried on the untouched model"
        )
        lines.append(
            f"{_with(state)}, the attack tells nothing of {silent} of the {told['n']} attacked:"
            f" {why}."
        )
    return lines


def _beside(state: str, gaps: Mapping[str, Any]) -> list[str]:
    return [
        _attacked(state, control, points)
        for end, control in CONTROLS.items()
        if (points := gaps.get(state + end))
    ]


def _attacked(state: str, control: str, points: Sequence[Sequence[float | None]]) -> str:
    """Whether the captions' own pictures come nearer than a control.

    All steps count, the start among them, not only the one with the largest gap.
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
        f"{_with(state)}, embeddings optimized for the pictures of these captions {come} nearer to"
        f" them than to {control}: {_listed(bounded)}."
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
