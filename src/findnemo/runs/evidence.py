"""What attempts and attacks show about the captions of a run, one by one and together.

An attempt without a copy is evidence only if the same attempt gives a copy on the untouched model,
its positive control. This module alone decides that; all outputs read it from here. All functions
are pure: they read what the run keeps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from findnemo.metrics.copies import COPY
from findnemo.robustness import ATTEMPTS
from findnemo.robustness.attack import uninformed
from findnemo.robustness.curves import curve, gap, shares, strongest
from findnemo.runs.store import Caption
from findnemo.stats import wilson

# prefixes of stages in the run store; the name of a trial follows
ATTACK = "attack:"
ATTEMPT = "attempts:"
MEMORIZED = "memorized"  # in stored names: captions over the threshold, with neurons off
ORDINARY = "ordinary"
OFF = "neurons off"
UNTOUCHED = "untouched"
HARDENED = "hardened"
GIVEN = "image to image"  # prefix of attempts that start from the picture itself
EMBEDDING = "optimized embedding"  # the attack, among the names of attempts


# one attempt on one caption -----------------------------------------------------------------------

VERDICTS = {
    "back": "it gives a copy",
    "not back": "it gives no copy, and gives one on the untouched model",
    "tells nothing": "it gives no copy, and is not seen to give one on the untouched model",
}


class AttemptVerdict(NamedTuple):
    """What one attempt on an edited model shows about a caption: a word of VERDICTS.

    `reached`: similarity to the picture that the attempt reached. `control`: similarity that it
    reached on the untouched model, None where it was not tried there.
    """

    word: str
    reached: float
    control: float | None

    @property
    def works(self) -> bool:
        """Whether the attempt gives a copy on the untouched model."""
        return self.control is not None and self.control >= COPY

    @property
    def why(self) -> str:
        """
        >>> verdict(0.1, 0.17).why
        'on the untouched model it gives no copy either: 0.17'
        """
        if self.word == "back":
            return f"it gives a copy: {self.reached:.2f}"
        if self.control is None:
            return "it was not tried on the untouched model"
        if self.word == "tells nothing":
            return f"on the untouched model it gives no copy either: {self.control:.2f}"
        return f"it gives no copy: {self.reached:.2f}, on the untouched model {self.control:.2f}"


def verdict(reached: float, control: float | None) -> AttemptVerdict:
    """The verdict on an attempt that reached a similarity, given its positive control.

    A copy counts as a copy whatever the control gives.

    >>> [verdict(*pair).word for pair in ((0.9, 0.9), (0.1, 0.9), (0.1, 0.17), (0.1, None))]
    ['back', 'not back', 'tells nothing', 'tells nothing']
    """
    found = AttemptVerdict("tells nothing", reached, control)
    if reached >= COPY:
        return found._replace(word="back")
    return found._replace(word="not back") if found.works else found


def verdicts(caption: Caption, bases: Mapping[str, str]) -> dict[str, dict[str, AttemptVerdict]]:
    """Verdicts on a caption over the threshold: state of the model -> attempt -> verdict.

    States are `neurons off` and `hardened`; the attempt `EMBEDDING` is the attack. Only results
    with the current basis count. `bases`: stage -> current basis.
    """
    found: dict[str, dict[str, AttemptVerdict]] = defaultdict(dict)
    if caption.detected is None or not caption.detected.memorized:
        return found
    for stage in (ATTEMPT, ATTACK):
        standing = _current(caption, bases, stage)
        control = standing.pop(UNTOUCHED, {})
        # on the untouched model the caption itself gives the picture, without any search
        curves = control.get("curves", {})
        blind = {start: curves[start] for start in uninformed(curves)}
        controls = _similarities(control | {"curves": blind})
        for state, payload in standing.items():
            if state in (OFF, HARDENED):
                for name, reached in _similarities(payload).items():
                    found[state][name] = verdict(reached, controls.get(name))
    return found


def tried_columns(found: Mapping[str, AttemptVerdict]) -> dict[str, Any]:
    """Columns of results.csv about attacks and attempts; None where nothing was tried.

    `attack`, `attack_why`: verdict on the attack, and why. `attempts_work`: attempts that are not
    given the picture and work on the untouched model. `attempts_back`: how many of these give a
    copy. `found`: attempt -> verdict, in one state of the model.

    >>> tried_columns({EMBEDDING: verdict(0.1, 0.17), "seeds: fresh": verdict(0.1, 0.9)})
    {'attack': 'tells nothing', 'attack_why': 'on the untouched model it gives no copy either: 0.17', 'attempts_work': 1, 'attempts_back': 0}
    """
    attack = found.get(EMBEDDING)
    words = prompts_of(found)
    works = [one for one in words if one.works]
    return {
        "attack": None if attack is None else attack.word,
        "attack_why": None if attack is None else attack.why,
        "attempts_work": len(works) if words else None,
        "attempts_back": sum(one.word == "back" for one in works) if words else None,
    }


def prompts_of(found: Mapping[str, AttemptVerdict]) -> list[AttemptVerdict]:
    """Verdicts of the attempts that are not given the picture."""
    return [one for name, one in found.items() if name != EMBEDDING and not name.startswith(GIVEN)]


def _similarities(payload: Mapping[str, Any]) -> dict[str, float]:
    """Attempt -> similarity to the picture that it reached.

    An attempt counts by its nearest image, the attack by the mean over the images of its best
    embedding.
    """
    near = {name: max(values) for name, values in payload.get("closeness", {}).items() if values}
    line = strongest(payload.get("curves", {}))
    return near | ({EMBEDDING: line[max(line)]} if line else {})


def _current(caption: Caption, bases: Mapping[str, str], stage: str) -> dict[str, dict[str, Any]]:
    """Trial -> result of a caption, without results of other neurons, settings or weights."""
    return {
        name.removeprefix(stage): payload
        for name in caption.results
        if name.startswith(stage)
        and (payload := caption.typed_result(name))["basis"] == bases.get(name)
    }


def _tally(found: Sequence[AttemptVerdict]) -> dict[str, Any]:
    """Counts of the verdicts on one attempt over captions.

    `n`: captions. `works`: captions whose picture the attempt gives on the untouched model. `back`:
    how many of these it brings back, with Wilson's 95 % interval `low`, `high`. `beyond`: captions
    whose picture it gives on the edited model alone. `silent`: control similarities of captions on
    which the attempt tells nothing.

    >>> _tally([verdict(0.1, 0.9), verdict(0.8, 0.9), verdict(0.1, 0.17)])
    {'n': 3, 'works': 2, 'back': 1, 'beyond': 0, 'silent': [0.17], 'low': 0.0945, 'high': 0.9055}
    """
    works = [one for one in found if one.works]
    back = sum(one.word == "back" for one in works)
    counts = {
        "n": len(found),
        "works": len(works),
        "back": back,
        "beyond": sum(one.word == "back" for one in found) - back,
        "silent": [one.control for one in found if one.word == "tells nothing"],
    }
    low, high = wilson(back, len(works)) if works else (None, None)
    return counts | {
        name: None if end is None else round(end, 4) for name, end in (("low", low), ("high", high))
    }


def counted(cell: Mapping[str, Any]) -> dict[str, Any] | None:
    """The counts of a cell of `attempts_summary` that are shown, None where it tells nothing.

    `back`: captions that give copies. `works`: the captions that count, in an edited model those on
    which the attempt works on the untouched model. If it works on none of them and still gives
    copies, all captions count.
    """
    told = cell.get("told")
    if told is None or (told["beyond"] and not told["works"]):
        return {**cell, "back": cell["captions"], "works": cell["n"]}
    return told if told["works"] else None


# all captions -------------------------------------------------------------------------------------


def _results(
    captions: Iterable[Caption], bases: Mapping[str, str], stage: str, is_over: bool
) -> dict[str, dict[int, dict[str, Any]]]:
    """Trial -> caption -> result, of the captions that were tried in every trial.

    `is_over`: of captions over the threshold, else of ordinary ones.
    """
    results: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for caption in captions:
        if (caption.detected is not None and caption.detected.memorized) is is_over:
            for trial, payload in _current(caption, bases, stage).items():
                results[trial][caption.id] = payload
    common = set.intersection(*map(set, results.values())) if results else set()
    return {
        name: {id_: payload for id_, payload in found.items() if id_ in common}
        for name, found in results.items()
    }


def attack_summary(captions: Sequence[Caption], bases: Mapping[str, str]) -> dict[str, Any]:
    """Curves of the attack with intervals, gaps to pictures never seen, and counts of verdicts.

    `curves`: name -> [step, mean similarity] pairs; `bands`: name -> [step, low, high], 95 %;
    `gaps`: name -> [step, gap, low, high], of the captions for which the attack works on the
    untouched model; `n`: captions attacked; `known`: how many of them have a known training image;
    `told`: state of the model -> counts (`_tally`), with `never`: [copies, pictures] of pictures
    never seen. `bases`: stage -> current basis of its results.
    """
    found = {c.id: verdicts(c, bases) for c in captions}
    rows: dict[str, dict[int, dict[int, float]]] = {}
    known = 0
    for who, is_over in ((MEMORIZED, True), (ORDINARY, False)):
        for name, payloads in _results(captions, bases, ATTACK, is_over).items():
            rows[_curve_name(who, name)] = {
                id_: strongest(p["curves"]) for id_, p in payloads.items()
            }
            if (who, name) == (MEMORIZED, OFF):
                known = sum(p["known"] for p in payloads.values())
    points = {name: curve(list(subjects.values())) for name, subjects in rows.items()}
    told = {
        state: [found[id_][state][EMBEDDING] for id_ in tried if EMBEDDING in found[id_][state]]
        for state in (OFF, HARDENED)
        if (tried := rows.get(_curve_name(MEMORIZED, state)))
    }
    works = {
        id_
        for id_, of in found.items()
        for one in of.values()
        if EMBEDDING in one and one[EMBEDDING].works
    }
    return {
        "x": "steps of the attack",
        "y": "similarity to the wanted picture",
        "n": max((len(r) for r in rows.values()), default=0),
        "known": known,
        "curves": {name: [[x, y] for x, y, _, _ in line] for name, line in points.items()},
        "bands": {
            name: [[x, low, high] for x, _, low, high in line if low is not None]
            for name, line in points.items()
        },
        "gaps": _gaps(rows, works),
        "told": {
            state: _tally(some) | {"never": _copies(rows.get(f"never seen, {state}", {}))}
            for state, some in told.items()
        },
    }


def _copies(lines: Mapping[int, Mapping[int, float]]) -> list[int]:
    """[pictures of which the attack gives a copy, pictures on which it was tried]."""
    return [sum(line[max(line)] >= COPY for line in lines.values()), len(lines)]


def _curve_name(who: str, trial: str) -> str:
    """
    >>> _curve_name("memorized", "neurons off, never seen"), _curve_name("ordinary", "neurons off")
    ('never seen, neurons off', 'mirrored, neurons off')
    """
    state, _, never = trial.partition(", ")
    return f"{never or ('mirrored' if who == ORDINARY else who)}, {state}"


def labelled(summary: Mapping[str, Any]) -> dict[str, Any]:
    """An `attack_summary` with the names of its curves and gaps as a reader sees them.

    The captions of the attack are those with neurons off. Some of them can be only suspected, so
    what is shown names the wanted picture, and not the state of a caption.

    >>> line = [[0, 0.1]]
    >>> gap = {"neurons off: memorized less never seen": line}
    >>> labelled({"curves": {"memorized, neurons off": line}, "gaps": gap})
    {'curves': {'own picture, neurons off': [[0, 0.1]]}, 'gaps': {'neurons off: own picture less never seen': [[0, 0.1]]}}
    """
    named = {
        part: {name.replace(MEMORIZED, "own picture"): line for name, line in summary[part].items()}
        for part in ("curves", "bands", "gaps")
        if summary.get(part)
    }
    return {**summary, **named}


def _gaps(
    rows: Mapping[str, Mapping[int, Mapping[int, float]]], works: Container[int]
) -> dict[str, list[list[float | None]]]:
    """Similarity to the own picture minus that of each control, in one state of the model.

    Only captions count for which the attack `works` on the untouched model. Pictures that were
    never seen are compared caption by caption.
    """
    gaps: dict[str, list[list[float | None]]] = {}
    for name, control in rows.items():
        kind, _, state = name.partition(", ")
        every = rows.get(f"{MEMORIZED}, {state}", {})
        wanted = {id_: line for id_, line in every.items() if id_ in works}
        if kind == MEMORIZED or not wanted:
            continue
        both = [id_ for id_ in wanted if id_ in control]
        mine = [wanted[id_] for id_ in both or wanted]
        theirs = [control[id_] for id_ in both or control]
        points = gap(mine, theirs, paired=bool(both))
        gaps[f"{state}: memorized less {kind}"] = [list(point) for point in points]
    return gaps


def attempts_summary(captions: Sequence[Caption], bases: Mapping[str, str]) -> dict[str, Any]:
    """Attempt -> column (`untouched`, `neurons off`, `ordinary, neurons off`) -> shares of copies.

    Shares are those of `curves.shares`. Columns of edited models, but for ordinary captions, also
    hold counts of verdicts, `told` (`_tally`).
    """
    found = {c.id: verdicts(c, bases) for c in captions}
    tried = _results(captions, bases, ATTEMPT, True)
    others = _results(captions, bases, ATTEMPT, False)
    results = tried | {f"{ORDINARY}, {name}": payloads for name, payloads in others.items()}
    columns: dict[str, dict[str, dict[str, Any]]] = {
        name: {
            attempt: {**cell}
            for attempt, cell in shares([p["closeness"] for p in payloads.values()]).items()
        }
        for name, payloads in results.items()
    }
    for state in (OFF, HARDENED):
        for attempt, cell in columns.get(state, {}).items():
            cell["told"] = _tally(
                [one for id_ in tried[state] if (one := found[id_][state].get(attempt))]
            )
    order = sorted(columns, key=lambda name: (name.startswith(ORDINARY), name != UNTOUCHED))
    table = {a: {name: columns[name][a] for name in order if a in columns[name]} for a in ATTEMPTS}
    return {"columns": order, "table": {a: values for a, values in table.items() if values}}
