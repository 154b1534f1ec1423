"""What attempts and attacks on the captions of a run say together.

Pure functions on what the run keeps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from findnemo.robustness import ATTEMPTS
from findnemo.robustness.curves import Point, curve, gap, shares, strongest
from findnemo.runs.store import Caption

# and the name of a trial: stages in the run store
ATTACK = "attack:"
ATTEMPT = "attempts:"
MEMORIZED = "memorized"
ORDINARY = "ordinary"
OFF = "neurons off"
UNTOUCHED = "untouched"
HARDENED = "hardened"


def _results(
    captions: Iterable[Caption], bases: Mapping[str, str], stage: str, is_memorized: bool
) -> dict[str, dict[int, dict[str, Any]]]:
    """Trial -> caption -> result, of memorized captions or of ordinary ones: those that
    were tried in every trial.

    What stands on another basis than the last is left out: other neurons, settings or weights make
    another curve.
    """
    results: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for caption in captions:
        if (caption.detected is not None and caption.detected.memorized) is is_memorized:
            for name, payload in caption.results.items():
                if name.startswith(stage) and payload["basis"] == bases.get(name):
                    results[name.removeprefix(stage)][caption.id] = payload
    common = set.intersection(*map(set, results.values())) if results else set()
    return {
        name: {id_: payload for id_, payload in found.items() if id_ in common}
        for name, found in results.items()
    }


def attack_summary(captions: Sequence[Caption], bases: Mapping[str, str]) -> dict[str, Any]:
    """Curves of the attack with intervals, and the gaps between memorized pictures and
    such that were never seen.

    `curves`: name -> [step, mean similarity] pairs; `bands`: name -> [step, low, high], 95 %;
    `gaps`: name -> [step, gap, low, high]; `n`: memorized captions; `known`: of how many the
    training image is known. `bases`: stage -> the basis that its results must stand on.
    """
    rows: dict[str, dict[int, dict[int, float]]] = {}
    known = 0
    for who, is_memorized in ((MEMORIZED, True), (ORDINARY, False)):
        for name, payloads in _results(captions, bases, ATTACK, is_memorized).items():
            rows[_curve_name(who, name)] = {
                id_: strongest(p["curves"]) for id_, p in payloads.items()
            }
            if (who, name) == (MEMORIZED, OFF):
                known = sum(p["known"] for p in payloads.values())
    points = {name: curve(list(subjects.values())) for name, subjects in rows.items()}
    return {
        "x": "steps of the attack",
        "y": "similarity to the wanted picture",
        "n": max((len(r) for r in rows.values()), default=0),
        "known": known,
        "curves": {name: [[x, y] for x, y, _, _ in line] for name, line in points.items()},
        "bands": {name: _band(line) for name, line in points.items()},
        "gaps": _gaps(rows),
    }


def _band(line: Iterable[Point]) -> list[list[Any]]:
    """[step, low, high] of the points of a curve that have an interval."""
    return [[x, low, high] for x, _, low, high in line if low is not None]


def _curve_name(who: str, trial: str) -> str:
    """
    >>> _curve_name("memorized", "neurons off, never seen"), _curve_name("ordinary", "neurons off")
    ('never seen, neurons off', 'mirrored, neurons off')
    """
    state, _, never = trial.partition(", ")
    return f"{never or ('mirrored' if who == ORDINARY else who)}, {state}"


def _gaps(
    rows: Mapping[str, Mapping[int, Mapping[int, float]]],
) -> dict[str, list[list[float | None]]]:
    """Memorized less each control, in the same model.

    Pictures that were never seen are compared caption by caption.
    """
    gaps: dict[str, list[list[float | None]]] = {}
    for name, control in rows.items():
        kind, _, state = name.partition(", ")
        wanted = rows.get(f"{MEMORIZED}, {state}", {})
        if kind == MEMORIZED or not wanted:
            continue
        both = [id_ for id_ in wanted if id_ in control]
        mine = [wanted[id_] for id_ in both or wanted]
        theirs = [control[id_] for id_ in both or control]
        points = gap(mine, theirs, paired=bool(both))
        gaps[f"{state}: memorized less {kind}"] = [list(point) for point in points]
    return gaps


def attempts_summary(captions: Sequence[Caption], bases: Mapping[str, str]) -> dict[str, Any]:
    """Attempt -> column (`untouched`, `neurons off`, `ordinary, neurons off`) -> shares of
    copies; see `curves.shares`.
    """
    columns = {
        (name if is_memorized else f"{ORDINARY}, {name}"): shares(
            [p["closeness"] for p in payloads.values()]
        )
        for is_memorized in (True, False)
        for name, payloads in _results(captions, bases, ATTEMPT, is_memorized).items()
    }
    order = sorted(columns, key=lambda name: (name.startswith(ORDINARY), name != UNTOUCHED))
    table = {a: {name: columns[name][a] for name in order if a in columns[name]} for a in ATTEMPTS}
    return {"columns": order, "table": {a: values for a, values in table.items() if values}}
