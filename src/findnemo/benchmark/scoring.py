"""Scoring a member of a suite: every method on its memories, and on captions that are none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from findnemo.benchmark.member import Member
from findnemo.benchmark.methods import METHODS, Answer, Method
from findnemo.benchmark.natural import NaturalMember
from findnemo.benchmark.natural_scoring import NaturalJudge, NaturalScore
from findnemo.benchmark.planted_scoring import PlantedJudge, Score
from findnemo.errors import InputError
from findnemo.neurons import NeuronSet

Progress = Callable[[str, int, int], None]
JUDGES: dict[type, Any] = {Member: PlantedJudge, NaturalMember: NaturalJudge}


@dataclass(frozen=True)
class Alarm:
    """A method on a caption that is not memorized: `neurons` found, which should be none; None where it changed something else.

    `kind`: ordinary (drawn as users' captions come), near-duplicate, or unusual.
    """

    member: str
    method: str
    caption: str
    kind: str
    neurons: int | None
    evaluations: int


Result = Score | NaturalScore | Alarm


def judge_of(member: Member | NaturalMember) -> Any:
    """Who scores answers in a member."""
    return JUDGES[type(member)](member)


def score_member(
    member: Member | NaturalMember,
    methods: Mapping[str, Method] | None = None,
    limit: int | None = None,
    done: Callable[[str, str], bool] = lambda method, caption: False,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Every method on every caption of a member, one result after the other. `done(method, caption)`: those to leave out.

    Memories that the model did not learn are left out. `limit`: the first N memories, and as many captions that are none, of each kind.
    """
    methods, judge = METHODS if methods is None else methods, judge_of(member)
    work = judge.work(limit)
    for k, (memory, caption, kind) in enumerate(work):
        if progress is not None:
            progress(member.name, k, len(work))
        if memory is not None and not done(judge.known, caption):
            yield judge.score(memory, judge.known, judge.best(memory))
        for name, method in methods.items():
            if done(name, caption):
                continue
            began = time.perf_counter()
            answer = method(judge.task(caption))
            spent = time.perf_counter() - began
            if memory is not None:
                yield judge.score(memory, name, answer, spent)
            else:
                yield Alarm(member.name, name, caption, kind, answer.size, answer.evaluations)
    if progress is not None:
        progress(member.name, len(work), len(work))


def answers(values: Mapping[str, Any], member: str) -> dict[str, Method]:
    """Another method's answers as a method: `{"method": NAME, "answers": {MEMBER: {CAPTION: {"neurons": {LAYER: [...]}, "evaluations": N}}}}`.

    Captions without an answer count as answered with no neurons. Raises InputError for anything else.
    """
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        given = {
            str(caption): Answer(NeuronSet(answer["neurons"]), int(answer.get("evaluations", 0)))
            for caption, answer in values["answers"].get(member, {}).items()
        }
        return (
            {str(values["method"]): lambda task: given.get(task.prompt, Answer(NeuronSet()))}
            if given
            else {}
        )
    raise InputError(
        'answers are JSON: {"method": NAME, "answers": {MEMBER: {CAPTION: {"neurons": {LAYER: [INDEX, ...]}}}}}'
    )


def to_json(result: Result) -> dict[str, Any]:
    return asdict(result)


def from_json(values: Mapping[str, Any]) -> Result:
    """What `to_json` gave; which result it is shows in its fields."""
    for kind, mark in ((Score, "precision"), (NaturalScore, "largest")):
        if mark in values:
            return kind(**values)
    return Alarm(**values)
