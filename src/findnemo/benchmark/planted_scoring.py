"""Suite 1: an answer against what was planted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from findnemo.benchmark.captions import ordinary
from findnemo.benchmark.effects import Effects
from findnemo.benchmark.member import Member
from findnemo.benchmark.methods import Answer, Task
from findnemo.benchmark.plan import Memory
from findnemo.metrics.copies import COPY
from findnemo.neurons import NeuronSet

TRUTH = "the truth"  # a row of its own: all planted neurons, what a method could reach at best
IMAGES, UNRELATED = 2, 16


@dataclass(frozen=True)
class Score:
    """A method on a memorized caption.

    `found`: layer -> indices. `precision`: share of what was found that is planted for this caption (None where nothing was found). `recall`: share of
    the planted that was found. `needed`: the same against as many of them as are sure to remove the memory, 1 at most. `size`: neurons found for
    each that is needed. `same_seed`: largest same-seed similarity on fresh seeds; `gone`: whether it is at most tau. `copies`: median descriptor
    similarity of finished images on fresh seeds to the training image; `copied`: whether it is .7 or more. `kept`: mean same-seed similarity of
    unrelated captions with the set off, 1 where nothing changes. `evaluations`: U-Net samples; `seconds`. What counts neurons is None where an
    answer changes something else.
    """

    member: str
    method: str
    caption: str
    kind: str
    type: str
    found: dict[str, list[int]] = field(repr=False)
    neurons: int | None
    precision: float | None
    recall: float | None
    needed: float | None
    size: float | None
    same_seed: float
    gone: bool
    copies: float
    copied: bool
    kept: float
    evaluations: int
    seconds: float


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


class PlantedJudge:
    """Scores of answers in one member; each set of neurons is looked at once, whichever methods find it."""

    known = TRUTH

    def __init__(self, member: Member, images: int = IMAGES):
        self.member, self.images = member, images
        self.effects = Effects(
            member.model, member.calibration.settings, member.unrelated[:UNRELATED]
        )
        self._seen: dict[Any, dict[str, float]] = {}

    def task(self, caption: str) -> Task:
        return Task(self.member.model, caption, self.member.calibration, self.member.reference)

    def best(self, memory: Memory) -> Answer:
        """The answer of the row `known`."""
        return Answer(memory.neurons)

    def work(self, limit: int | None = None) -> list[tuple[Memory | None, str, str]]:
        """(memory, caption, kind) of memories that were learned, and of captions that are none (memory None).

        Near-duplicates that copy all the same are left out: they are not what they are to stand for. `limit`: the first N of each.
        """
        chosen, near = learned(self.member)
        none = {
            "ordinary": ordinary(self.member.unrelated[UNRELATED:]),
            "near-duplicate": near,
            "unusual": self.member.plan.unusual,
        }
        return [
            *((m, m.caption, m.kind) for m in chosen[:limit]),
            *(
                (None, caption, kind)
                for kind, captions in none.items()
                for caption in captions[:limit]
            ),
        ]

    def about(self) -> dict[str, Any]:
        work = self.work()
        negatives = sum(memory is None for memory, *_ in work)
        plan = self.member.plan
        return {
            "seed": plan.seed,
            "memories": len(plan.memories),
            "learned": len(work) - negatives,
            "negatives": negatives,
        }

    def effect(self, memory: Memory, answer: Answer) -> dict[str, float]:
        """`same_seed`, `copies`, `kept` with the answer in force."""
        key = memory.caption, answer.neurons, answer.edit
        if key not in self._seen:
            copies = sorted(
                self.effects.copies(
                    memory.caption, [self.member.picture(memory)], answer, self.images
                )
            )
            self._seen[key] = {
                "same_seed": self.effects.same_seed(
                    memory.caption, answer, self.member.calibration.tau
                ),
                "copies": copies[(len(copies) - 1) // 2],
                "kept": self.effects.kept(answer),
            }
        return self._seen[key]

    def score(self, memory: Memory, method: str, answer: Answer, seconds: float = 0.0) -> Score:
        """How good an answer is, by the member's truth."""
        found, size, seen = answer.neurons, answer.size, self.effect(memory, answer)
        right = None if size is None else precision(found, memory.neurons)
        return Score(
            member=self.member.name,
            method=method,
            caption=memory.caption,
            kind=memory.kind,
            type=memory.type,
            found=found.to_json(),
            neurons=size,
            precision=None if right is None else round(right, 4),
            recall=None if size is None else round(recall(found, memory.neurons), 4),
            needed=None if size is None else round(recall(found, memory.neurons, memory.needed), 4),
            size=None if size is None else round(size / memory.needed, 4),
            same_seed=seen["same_seed"],
            gone=seen["same_seed"] <= self.member.calibration.tau,
            copies=seen["copies"],
            copied=seen["copies"] >= COPY,
            kept=seen["kept"],
            evaluations=answer.evaluations,
            seconds=round(seconds, 2),
        )


def learned(member: Member) -> tuple[list[Memory], list[str]]:
    """Memories that were learned, under the rule that holds; their near-duplicates, one each, that are no copies."""
    known = member.plan.measured
    there = [m for m in member.plan.memories if known.get(m.caption, {}).get("learned", True)]
    memories = [as_measured(m, known.get(m.caption, {}), member.calibration.tau) for m in there]
    near = [
        c
        for m in memories
        for c in m.near[:1]
        if known.get(m.caption, {}).get("near", {}).get(c, 0.0) < COPY
    ]
    return memories, near


def as_measured(memory: Memory, values: Mapping[str, Any], tau: float) -> Memory:
    """The memory with the rule that holds: where it stayed alive with as few neurons on as it was taught to be gone with, all are needed.

    >>> memory = Memory("", "VM", "c", "p", NeuronSet({"l": range(4)}), alive=2, gone=1)
    >>> as_measured(memory, {"few": [0.5, 0.6]}, 0.8).needed, as_measured(memory, {"few": [0.5, 0.9]}, 0.8).needed
    (3, 4)
    """
    return (
        replace(memory, gone=0) if any(value > tau for value in values.get("few", ())) else memory
    )
