"""Score a member of a suite: every method on its memories, and on captions that are no memories."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from typing_extensions import Required, TypedDict

from findnemo.benchmark.files import Closed, Neurons
from findnemo.benchmark.judging import Judge
from findnemo.benchmark.methods import METHODS, Answer, Method
from findnemo.benchmark.natural import NaturalMember
from findnemo.benchmark.natural_scoring import NaturalJudge, NaturalScore
from findnemo.benchmark.planted_scoring import PlantedJudge, Score
from findnemo.benchmark.truth import Member
from findnemo.errors import InputError
from findnemo.files.shapes import adapter

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Alarm(Closed):
    """A method on a caption that is not memorized.

    `neurons`: number found, which should be 0; None if the method changed something else. `kind`:
    ordinary (drawn as users write captions), near-duplicate, or unusual.
    """

    member: str
    method: str
    caption: str
    kind: str
    neurons: int | None
    evaluations: int


Result = Score | NaturalScore | Alarm


class OwnAnswer(TypedDict, total=False):
    """One answer in the file of a user's own method."""

    neurons: Required[Neurons]
    evaluations: int


class OwnAnswers(TypedDict):
    """The file of a user's own method: its name, and member -> caption -> answer."""

    method: str
    answers: dict[str, dict[str, OwnAnswer]]


def judge_of(member: Member | NaturalMember) -> Judge:
    """The judge of answers in a member."""
    return PlantedJudge(member) if isinstance(member, Member) else NaturalJudge(member)


def score_member(
    member: Member | NaturalMember,
    methods: Mapping[str, Method] | None = None,
    limit: int | None = None,
    done: Callable[[str, str], bool] = lambda method, caption: False,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Score every method on every caption of a member; yield one result after the other.

    `done(method, caption)`: whether to leave out a pair. Memories that the model did not learn are
    left out. `limit`: the first N memories, and as many other captions of each kind.
    """
    methods = METHODS if methods is None else methods
    report = progress or (lambda member, done, total: None)
    judge = judge_of(member)
    work = judge.work(limit)
    for k, (memory, caption, kind) in enumerate(work):
        report(member.name, k, len(work))
        if memory is not None and not done(judge.anchor, caption):
            yield judge.score(memory, judge.anchor, judge.anchor_answer(memory))
        for name, method in methods.items():
            if done(name, caption):
                continue
            began = time.perf_counter()
            answer = method(judge.task(caption))
            spent = time.perf_counter() - began
            if memory is None:
                yield Alarm(member.name, name, caption, kind, answer.size, answer.evaluations)
            else:
                yield judge.score(memory, name, answer, spent)
    report(member.name, len(work), len(work))


def answers(values: Mapping[str, Any], member: str) -> dict[str, Method]:
    """A user's own answers as a method.

    Their form is `{"method": NAME, "answers": {MEMBER: {CAPTION: {"neurons": {LAYER: [...]},
    "evaluations": N}}}}`. Captions without an answer count as answered with no neurons. Raises
    InputError for any other form.
    """
    try:
        own: OwnAnswers = adapter(OwnAnswers).validate_python(values)
    except ValidationError as error:
        raise InputError(
            'answers are JSON: {"method": NAME, "answers": {MEMBER: {CAPTION: {"neurons": {LAYER:'
            " [INDEX, ...]}}}}}"
        ) from error
    given = {
        caption: Answer(answer["neurons"], answer.get("evaluations", 0))
        for caption, answer in own["answers"].get(member, {}).items()
    }
    return {own["method"]: lambda task: given.get(task.prompt, Answer())} if given else {}
