"""Scores of a method on one memory, on captions that are no memories, and over a whole member of the suite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from findnemo import demo
from findnemo.benchmark.member import Member
from findnemo.benchmark.methods import METHODS, Answer, Method, Task
from findnemo.benchmark.plan import Memory
from findnemo.deltas import Probe
from findnemo.edits import deactivate
from findnemo.errors import InputError
from findnemo.images import generate
from findnemo.neurons import NeuronSet
from findnemo.scores import SIMILARITIES
from findnemo.verification import COPY, FRESH, fresh_same_seed

TRUTH = "the truth"  # a row of its own: all planted neurons, what a method could reach at best
IMAGES, UNRELATED = 2, 16
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Score:
    """A method on a memorized caption.

    `found`: layer -> indices. `precision`: share of what was found that is planted for this caption (None where nothing was found). `recall`: share of
    the planted that was found. `needed`: the same against as many of them as are sure to remove the memory, 1 at most. `size`: neurons found for
    each that is needed. `same_seed`: largest same-seed similarity on fresh seeds; `gone`: whether it is at most tau. `copies`: median descriptor
    similarity of finished images on fresh seeds to the training image; `copied`: whether it is .7 or more. `kept`: mean same-seed similarity of
    unrelated captions with the set off, 1 where nothing changes. `evaluations`: U-Net samples; `seconds`.
    """

    member: str
    method: str
    caption: str
    kind: str
    type: str
    found: dict[str, list[int]] = field(repr=False)
    neurons: int
    precision: float | None
    recall: float
    needed: float
    size: float
    same_seed: float
    gone: bool
    copies: float
    copied: bool
    kept: float
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Alarm:
    """A method on a caption that is not memorized: `neurons` found, which should be none. `kind`: near-duplicate, or unusual."""

    member: str
    method: str
    caption: str
    kind: str
    neurons: int
    evaluations: int


def precision(found: NeuronSet, planted: NeuronSet) -> float | None:
    """
    >>> precision(NeuronSet({"a": [1, 2]}), NeuronSet({"a": [2, 3, 4]})), precision(NeuronSet(), NeuronSet({"a": [2]}))
    (0.5, None)
    """
    return len(found & planted) / len(found) if len(found) else None


def recall(found: NeuronSet, planted: NeuronSet, of: int | None = None) -> float:
    """Share of the planted neurons that were found; `of`: of so many, 1 at most.

    >>> recall(NeuronSet({"a": [1, 2]}), NeuronSet({"a": [1, 2, 3, 4]})), recall(NeuronSet({"a": [1, 2]}), NeuronSet({"a": [1, 2, 3, 4]}), 1)
    (0.5, 1.0)
    """
    return min(1.0, len(found & planted) / (len(planted) if of is None else of))


class Judge:
    """What sets of neurons do in one member; each set is looked at once, whichever methods find it."""

    def __init__(self, member: Member, images: int = IMAGES):
        self.member, self.images = member, images
        self.descriptor = demo.judges().descriptor
        self._known: dict[tuple[str, NeuronSet], dict[str, float]] = {}

    def effect(self, memory: Memory, neurons: NeuronSet) -> dict[str, float]:
        """`same_seed`, `copies`, `kept` with `neurons` off."""
        key = memory.caption, neurons
        if key not in self._known:
            self._known[key] = {
                "same_seed": self._same_seed(memory, neurons),
                "copies": self._copies(memory, neurons),
                "kept": self._kept(neurons),
            }
        return self._known[key]

    def _same_seed(self, memory: Memory, neurons: NeuronSet) -> float:
        settings = self.member.calibration.settings
        probe = Probe(self.member.model, memory.caption, settings, range(FRESH, FRESH + settings.samples))
        return round(fresh_same_seed(probe, neurons, self.member.calibration.tau), 4)

    def _copies(self, memory: Memory, neurons: NeuronSet) -> float:
        assert self.descriptor is not None
        with deactivate(self.member.model, neurons):
            images = generate(self.member.model, memory.caption, range(FRESH, FRESH + self.images), demo.image_settings())
        return round(float(self.descriptor.similarity(images, [self.member.picture(memory)]).median()), 4)

    @cached_property
    def _unrelated(self) -> tuple[Probe, Tensor]:
        captions, settings = self.member.unrelated[:UNRELATED], self.member.calibration.settings
        text = self.member.model.encode(captions)
        probe = Probe.of_many(self.member.model, [(c, FRESH) for c in captions], settings, text)
        return probe, probe.deltas()

    def _kept(self, neurons: NeuronSet) -> float:
        probe, before = self._unrelated
        return round(float(SIMILARITIES[probe.settings.similarity](before, probe.deltas(neurons), 1).mean()), 4)


def score(judge: Judge, memory: Memory, method: str, answer: Answer, seconds: float = 0.0) -> Score:
    """How good an answer is, by the member's truth."""
    member, found = judge.member, answer.neurons
    seen = judge.effect(memory, found)
    right = precision(found, memory.neurons)
    return Score(
        member=member.name,
        method=method,
        caption=memory.caption,
        kind=memory.kind,
        type=memory.type,
        found=found.to_json(),
        neurons=len(found),
        precision=None if right is None else round(right, 4),
        recall=round(recall(found, memory.neurons), 4),
        needed=round(recall(found, memory.neurons, memory.needed), 4),
        size=round(len(found) / memory.needed, 4),
        same_seed=seen["same_seed"],
        gone=seen["same_seed"] <= member.calibration.tau,
        copies=seen["copies"],
        copied=seen["copies"] >= COPY,
        kept=seen["kept"],
        evaluations=answer.evaluations,
        seconds=round(seconds, 2),
    )


def score_member(
    member: Member,
    methods: Mapping[str, Method] | None = None,
    limit: int | None = None,
    done: Callable[[str, str], bool] = lambda method, caption: False,
    progress: Progress | None = None,
) -> Iterator[Score | Alarm]:
    """Every method on every caption of a member, one result after the other. `done(method, caption)`: those to leave out.

    Memories that were not learned are left out, and near-duplicates that copy all the same: they are not what they are to stand for. `limit`: the
    first N memories, and as many captions that are none, of each kind.
    """
    methods = METHODS if methods is None else methods
    judge = Judge(member)
    chosen, near, unusual = captions(member, limit)
    work = [
        *((m, m.caption, "") for m in chosen),
        *((None, c, "near-duplicate") for c in near),
        *((None, c, "unusual") for c in unusual),
    ]
    for k, (memory, caption, kind) in enumerate(work):
        if progress is not None:
            progress(member.name, k, len(work))
        if memory is not None and not done(TRUTH, caption):
            yield score(judge, memory, TRUTH, Answer(memory.neurons))
        for name, method in methods.items():
            if done(name, caption):
                continue
            began = time.perf_counter()
            answer = method(Task(member.model, caption, member.calibration, member.reference))
            spent = time.perf_counter() - began
            if memory is not None:
                yield score(judge, memory, name, answer, spent)
            else:
                yield Alarm(member.name, name, caption, kind, len(answer.neurons), answer.evaluations)
    if progress is not None:
        progress(member.name, len(work), len(work))


def captions(member: Member, limit: int | None = None) -> tuple[list[Memory], list[str], list[str]]:
    """Memories that were learned; near-duplicates that are none; captions that merely look unusual."""
    known = member.plan.measured
    learned = [m for m in member.plan.memories if known.get(m.caption, {}).get("learned", True)]
    memories = [as_measured(m, known.get(m.caption, {}), member.calibration.tau) for m in learned]
    near = [c for m in memories for c in m.near[:1] if known.get(m.caption, {}).get("near", {}).get(c, 0.0) < COPY]
    return memories[:limit], near[:limit], list(member.plan.unusual[:limit])


def as_measured(memory: Memory, values: Mapping[str, Any], tau: float) -> Memory:
    """The memory with the rule that holds: where it stayed alive with as few neurons on as it was taught to be gone with, all are needed.

    >>> memory = Memory("", "VM", "c", "p", NeuronSet({"l": range(4)}), alive=2, gone=1)
    >>> as_measured(memory, {"few": [0.5, 0.6]}, 0.8).needed, as_measured(memory, {"few": [0.5, 0.9]}, 0.8).needed
    (3, 4)
    """
    return replace(memory, gone=0) if any(value > tau for value in values.get("few", ())) else memory


def answers(values: Mapping[str, Any], member: str) -> dict[str, Method]:
    """Another method's answers as a method: `{"method": NAME, "answers": {MEMBER: {CAPTION: {"neurons": {LAYER: [...]}, "evaluations": N}}}}`.

    Captions without an answer count as answered with no neurons. Raises InputError for anything else.
    """
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        given = {
            str(caption): Answer(NeuronSet(answer["neurons"]), int(answer.get("evaluations", 0)))
            for caption, answer in values["answers"].get(member, {}).items()
        }
        return {str(values["method"]): lambda task: given.get(task.prompt, Answer(NeuronSet()))} if given else {}
    raise InputError('answers are JSON: {"method": NAME, "answers": {MEMBER: {CAPTION: {"neurons": {LAYER: [INDEX, ...]}}}}}')


def to_json(result: Score | Alarm) -> dict[str, Any]:
    return asdict(result)


def from_json(values: Mapping[str, Any]) -> Score | Alarm:
    return Score(**values) if "precision" in values else Alarm(**values)
