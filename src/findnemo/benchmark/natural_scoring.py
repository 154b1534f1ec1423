"""Suite 2: what an answer does to a memory that nobody planted. No neurons are known there, so pictures decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from findnemo import demo
from findnemo.benchmark.captions import ordinary
from findnemo.benchmark.effects import Effects
from findnemo.benchmark.methods import Answer, Task
from findnemo.benchmark.natural import NaturalMember, NaturalMemory
from findnemo.metrics.copies import COPY

UNTOUCHED = "untouched"  # a row of its own: the model as it is
IMAGES, KEPT, REFERENCE = 10, 24, 16


@dataclass(frozen=True)
class NaturalScore:
    """A method on a caption that the model copies.

    `found`: layer -> indices; `neurons`: their number, None where an answer changes something else. `copies`: descriptor similarity of ten finished
    images on fresh seeds to the training picture (of a template the nearest variant); `median` and `largest` of them; `gone`: whether none is .7 or
    more. `kept`: mean same-seed similarity of ordinary captions' noise differences, 1 where nothing changes; `alignment`: mean cosine of ordinary
    captions and their finished pictures. `evaluations`: U-Net samples; `seconds`.
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


class NaturalJudge:
    """Scores of answers in one member; each set of neurons is looked at once, whichever methods find it."""

    known = UNTOUCHED

    def __init__(self, member: NaturalMember, images: int = IMAGES):
        self.member, self.images = member, images
        self.effects = Effects(member.model, member.calibration.settings, demo.unrelated()[:KEPT])
        self._costs: dict[Any, tuple[float, float]] = {}
        self._copies: dict[Any, list[float]] = {}

    def task(self, caption: str) -> Task:
        return Task(
            self.member.model,
            caption,
            self.member.calibration,
            demo.holdout()[:REFERENCE],
            "all",
            pictures=True,
        )

    def best(self, memory: NaturalMemory) -> Answer:
        """The answer of the row `known`."""
        return Answer()

    def work(self, limit: int | None = None) -> list[tuple[NaturalMemory | None, str, str]]:
        """(memory, caption, kind) of captions that the model copies, and of ordinary ones (memory None). `limit`: the first N of each."""
        copied = [m for m in self.member.memories if m.copied]
        none = ordinary(demo.unrelated()[KEPT:])
        return [
            *((m, m.caption, m.type) for m in copied[:limit]),
            *((None, c, "ordinary") for c in none[:limit]),
        ]

    def about(self) -> dict[str, Any]:
        member, work = self.member, self.work()
        negatives = sum(memory is None for memory, *_ in work)
        counts = {
            "memories": len(member.memories),
            "learned": len(work) - negatives,
            "negatives": negatives,
        }
        return {"held_out": member.held_out, "base": member.base, **counts}

    def score(
        self, memory: NaturalMemory, method: str, answer: Answer, seconds: float = 0.0
    ) -> NaturalScore:
        """How good an answer is, by pictures."""
        copies, (kept, alignment) = self._copied(memory, answer), self._cost(answer)
        return NaturalScore(
            member=self.member.name,
            method=method,
            caption=memory.caption,
            type=memory.type,
            found=answer.neurons.to_json(),
            neurons=answer.size,
            copies=copies,
            median=round(median(copies), 4),
            largest=max(copies),
            gone=max(copies) < COPY,
            kept=kept,
            alignment=alignment,
            evaluations=answer.evaluations,
            seconds=round(seconds, 2),
        )

    def _copied(self, memory: NaturalMemory, answer: Answer) -> list[float]:
        key = memory.caption, answer.neurons, answer.edit
        if key not in self._copies:
            self._copies[key] = self.effects.copies(
                memory.caption, memory.opened(), answer, self.images
            )
        return self._copies[key]

    def _cost(self, answer: Answer) -> tuple[float, float]:
        key = answer.neurons, answer.edit
        if key not in self._costs:
            self._costs[key] = self.effects.kept(answer), self.effects.alignment(answer)
        return self._costs[key]
