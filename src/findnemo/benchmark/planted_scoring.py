"""Suite 1: an answer compared with the planted truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from findnemo.benchmark.captions import ordinary
from findnemo.benchmark.files import Closed
from findnemo.benchmark.judging import Judge
from findnemo.benchmark.methods import Answer, Task
from findnemo.benchmark.plan import Memory
from findnemo.benchmark.truth import Member
from findnemo.metrics.copies import COPY
from findnemo.neurons import NeuronSet

TRUTH = "the truth"  # the row of all planted neurons, the best that a method could reach
IMAGES = 2  # finished images for a memory
UNRELATED = 16  # captions that must not change


@dataclass(frozen=True)
class Score(Closed):
    """A method on a memorized caption.

    `found`: layer -> indices. `precision`: share of the found neurons that are planted for this
    caption (None if nothing was found). `recall`: share of the planted ones that were found.
    `needed`: recall relative to as many planted neurons as certainly remove the memory, at most 1.
    `size`: neurons found for each needed one. `same_seed`: largest same-seed similarity on fresh
    seeds; `gone`: whether it is at most tau. `copies`: median descriptor similarity of finished
    images on fresh seeds to the training image; `copied`: whether it is .7 or more. `kept`: mean
    same-seed similarity of unrelated captions with the set off, 1 if nothing changes.
    `evaluations`: U-Net samples; `seconds`. Counts of neurons are None if an answer changes
    something else.
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
    """Share of the found neurons that are in the truth; None if none was found.

    >>> precision(NeuronSet({"a": [1, 2]}), NeuronSet({"a": [1, 3]})), precision(NeuronSet(), NeuronSet())
    (0.5, None)
    """
    return len(found & planted) / len(found) if len(found) else None


def recall(found: NeuronSet, planted: NeuronSet, of: int | None = None) -> float:
    """Share of the planted neurons that were found. `of`: relative to this many, at most 1.

    >>> recall(NeuronSet({"a": [1, 2]}), NeuronSet({"a": [1, 2, 3, 4]})), recall(NeuronSet({"a": [1, 2]}), NeuronSet({"a": [1, 2, 3, 4]}), 1)
    (0.5, 1.0)
    """
    return min(1.0, len(found & planted) / (len(planted) if of is None else of))


class PlantedJudge(Judge):
    """Scores answers in a member of suite 1."""

    result = Score
    anchor = TRUTH

    def __init__(self, member: Member, images: int = IMAGES):
        super().__init__(member, member.unrelated[:UNRELATED], images)
        self.memories, near = learned(member)
        self.negatives = {
            "ordinary": ordinary(member.unrelated[UNRELATED:]),
            "near-duplicate": near,
            "unusual": member.plan.unusual,
        }
        plan = member.plan
        self.origin = {"held_out": plan.held_out, "seed": plan.seed, "memories": len(plan.memories)}

    def task(self, caption: str) -> Task:
        return Task(self.model, caption, self.member.calibration, self.member.reference)

    def anchor_answer(self, memory: Memory) -> Answer:
        return Answer(memory.neurons)

    def on_memory(self, memory: Memory, answer: Answer) -> dict[str, Any]:
        similarities = sorted(self.copies(memory.caption, [self.member.picture(memory)], answer))
        copies = similarities[(len(similarities) - 1) // 2]
        same_seed = self.same_seed(memory.caption, answer)
        return {
            "same_seed": same_seed,
            "gone": same_seed <= self.tau,
            "copies": copies,
            "copied": copies >= COPY,
        }

    def on_others(self, answer: Answer) -> dict[str, float]:
        return {"kept": self.unrelated_similarity(answer)}

    def against_truth(self, memory: Memory, answer: Answer) -> dict[str, Any]:
        found = answer.neurons
        figures = {
            "precision": precision(found, memory.neurons),
            "recall": recall(found, memory.neurons),
            "needed": recall(found, memory.neurons, memory.needed),
            "size": len(found) / memory.needed,
        }
        if answer.size is None:
            figures = dict.fromkeys(figures)
        rounded = {name: None if x is None else round(x, 4) for name, x in figures.items()}
        return {"kind": memory.kind, **rounded}


def learned(member: Member) -> tuple[list[Memory], list[str]]:
    """The learned memories under their measured rule, and their near-duplicates, one for each.

    Near-duplicates that copy the picture are left out: they are no examples of ordinary captions.
    """
    memories = []
    near = []
    for memory in member.plan.memories:
        measured = member.plan.measured.get(memory.caption, {})
        if measured.get("learned", True):
            memories.append(as_measured(memory, measured, member.calibration.tau))
            copies = measured.get("near", {})
            near += [caption for caption in memory.near[:1] if copies.get(caption, 0.0) < COPY]
    return memories, near


def as_measured(memory: Memory, values: Mapping[str, Any], tau: float) -> Memory:
    """The memory with its measured rule: if it stayed alive with as few neurons as it was taught to
    be gone with, all are needed.

    >>> memory = Memory("", "VM", "c", "p", NeuronSet({"l": range(4)}), alive=2, gone=1)
    >>> as_measured(memory, {"few": [0.5, 0.6]}, 0.8).needed, as_measured(memory, {"few": [0.5, 0.9]}, 0.8).needed
    (3, 4)
    """
    alive = any(value > tau for value in values.get("few", ()))
    return replace(memory, gone=0) if alive else memory
