"""Suite 2: the effect of an answer on a memory that nobody planted.

Its neurons are unknown, so pictures decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from findnemo import demo
from findnemo.benchmark.captions import ordinary
from findnemo.benchmark.files import Closed
from findnemo.benchmark.judging import Judge
from findnemo.benchmark.methods import Answer, Task
from findnemo.benchmark.natural import NaturalMember, NaturalMemory
from findnemo.metrics.copies import COPY

UNTOUCHED = "untouched"  # the row of the unedited model
IMAGES = 10  # finished images for a memory
KEPT = 24  # unrelated captions that must not change
REFERENCE = 16  # captions that methods may compare with


@dataclass(frozen=True)
class NaturalScore(Closed):
    """A method on a caption that the model copies.

    `found`: layer -> indices; `neurons`: their number, None if an answer changes something else.
    `copies`: descriptor similarity of ten finished images on fresh seeds to the training picture
    (of a template, to the nearest variant); `median` and `largest` of them; `gone`: whether none is
    .7 or more. `kept`: mean same-seed similarity of ordinary captions' noise differences, 1 if
    nothing changes; `alignment`: mean cosine of ordinary captions and their finished pictures.
    `evaluations`: U-Net samples; `seconds`.
    """

    member: str
    method: str
    caption: str
    type: str
    found: dict[str, list[int]] = field(repr=False)
    neurons: int | None
    copies: list[float]
    median: float
    largest: float
    gone: bool
    kept: float
    alignment: float
    evaluations: int
    seconds: float


class NaturalJudge(Judge):
    """Scores answers in a member of suite 2."""

    result = NaturalScore
    anchor = UNTOUCHED

    def __init__(self, member: NaturalMember, images: int = IMAGES):
        super().__init__(member, demo.unrelated()[:KEPT], images)
        self.memories = [memory for memory in member.memories if memory.copied]
        self.negatives = {"ordinary": ordinary(demo.unrelated()[KEPT:])}
        self.origin = {
            "held_out": member.held_out,
            "base": member.base,
            "memories": len(member.memories),
        }

    def task(self, caption: str) -> Task:
        reference = demo.holdout()[:REFERENCE]
        return Task(self.model, caption, self.member.calibration, reference, "all", pictures=True)

    def anchor_answer(self, memory: NaturalMemory) -> Answer:
        return Answer()

    def on_memory(self, memory: NaturalMemory, answer: Answer) -> dict[str, Any]:
        copies = self.copies(memory.caption, memory.opened(), answer)
        return {
            "copies": copies,
            "median": round(median(copies), 4),
            "largest": max(copies),
            "gone": max(copies) < COPY,
        }

    def on_others(self, answer: Answer) -> dict[str, float]:
        return {"kept": self.unrelated_similarity(answer), "alignment": self.alignment(answer)}
