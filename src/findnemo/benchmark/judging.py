"""The common part of both suites: which captions of a member are scored, and how an answer changes
a memory and other captions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from PIL import Image
from torch import Tensor

from findnemo import demo
from findnemo.benchmark.methods import Answer, Task
from findnemo.benchmark.natural import NaturalMember
from findnemo.benchmark.truth import Member
from findnemo.images import generate_many
from findnemo.passes import Rows
from findnemo.scores import SIMILARITIES
from findnemo.seeds import FRESH
from findnemo.verification import finished, fresh, nearest, same_seed_of_memory

PICTURES = 8  # ordinary captions with judged pictures


class Judge(ABC):
    """Scores answers in one member, on fresh seeds.

    The effect of a set of neurons is measured once, whichever methods find it.

    `result`: the class of the scores. `anchor`: the method's name in the rows of `anchor_answer`,
    with which methods are compared. `unrelated`: captions that must not change. `images`: number of
    finished images of a memory. `memories`: those to score. `negatives`: kind -> captions that are
    not memorized. `origin`: where the member comes from.
    """

    result: type
    anchor: str
    memories: Sequence[Any]
    negatives: Mapping[str, Sequence[str]]
    origin: Mapping[str, Any]

    def __init__(self, member: Member | NaturalMember, unrelated: Sequence[str], images: int):
        self.member: Any = member
        self.model = member.model
        self.settings = member.calibration.settings
        self.tau = member.calibration.tau
        self.unrelated = list(unrelated)
        self.images = images
        self.judges = demo.judges()
        self._costs: dict[Any, dict[str, Any]] = {}
        self._effects: dict[Any, dict[str, Any]] = {}

    @abstractmethod
    def task(self, caption: str) -> Task:
        """The input of a method."""

    @abstractmethod
    def anchor_answer(self, memory: Any) -> Answer:
        """The answer of the row `anchor` for a memory."""

    @abstractmethod
    def on_memory(self, memory: Any, answer: Answer) -> dict[str, Any]:
        """Figures of a memory with an answer in force."""

    @abstractmethod
    def on_others(self, answer: Answer) -> dict[str, Any]:
        """Figures of unrelated captions with an answer in force."""

    def against_truth(self, memory: Any, answer: Answer) -> dict[str, Any]:
        """Figures that compare neurons with the truth, if it is known."""
        return {}

    def work(self, limit: int | None = None) -> list[tuple[Any, str, str]]:
        """(memory, caption, kind) of learned memories, and of captions that are no memories (memory
        None).

        `limit`: the first N of each kind.
        """
        memories = [(m, m.caption, m.kind) for m in self.memories[:limit]]
        others = [
            (None, caption, kind)
            for kind, captions in self.negatives.items()
            for caption in captions[:limit]
        ]
        return [*memories, *others]

    def about(self) -> dict[str, Any]:
        """What a results file says about the member."""
        return {
            "fingerprint": self.model.fingerprint,
            "tau": round(self.tau, 4),
            **self.origin,
            "learned": len(self.memories),
            "negatives": sum(map(len, self.negatives.values())),
        }

    def score(self, memory: Any, method: str, answer: Answer, seconds: float = 0.0) -> Any:
        """Score an answer."""
        change = answer.neurons, answer.edit
        if change not in self._costs:
            self._costs[change] = self.on_others(answer)
        if (memory.caption, change) not in self._effects:
            self._effects[memory.caption, change] = self.on_memory(memory, answer)
        return self.result(
            member=self.member.name,
            method=method,
            caption=memory.caption,
            type=memory.type,
            found=answer.neurons.to_json(),
            neurons=answer.size,
            evaluations=answer.evaluations,
            seconds=round(seconds, 2),
            **self._effects[memory.caption, change],
            **self._costs[change],
            **self.against_truth(memory, answer),
        )

    def same_seed(self, caption: str, answer: Answer) -> float:
        """Largest same-seed similarity of the caption's noise differences; if no seed replicates,
        over all seeds.
        """
        probe = fresh(self.model, caption, self.settings)
        before = probe.deltas()
        with answer.applied(self.model):
            after = probe.deltas()
        return round(same_seed_of_memory(before, after, self.settings, self.tau), 4)

    def copies(self, caption: str, pictures: Sequence[Image.Image], answer: Answer) -> list[float]:
        """Descriptor similarity of each finished image to the training picture, or to the nearest
        of several.
        """
        assert self.judges.descriptor is not None
        edit = answer.applied(self.model)
        images = finished(self.model, caption, self.images, demo.image_settings(), edit)
        return [round(float(s), 4) for s in nearest(images, pictures, self.judges.descriptor)]

    def unrelated_similarity(self, answer: Answer) -> float:
        """Mean same-seed similarity of the unrelated captions' noise differences; 1 if nothing
        changes.
        """
        rows, before = self._unrelated
        with answer.applied(self.model):
            after = rows.deltas()
        alike = SIMILARITIES[self.settings.similarity](before, after, 1)
        return round(float(alike.mean()), 4)

    @cached_property
    def _unrelated(self) -> tuple[Rows, Tensor]:
        """Passes of the unrelated captions, and their noise differences in the untouched model."""
        samples = [(caption, FRESH) for caption in self.unrelated]
        rows = Rows(self.model, samples, self.settings, self.model.encode(self.unrelated))
        return rows, rows.deltas()

    def alignment(self, answer: Answer) -> float:
        """Mean cosine of picture and caption (the demo's CLIP) over the first unrelated
        captions.
        """
        assert self.judges.alignment is not None
        captions = self.unrelated[:PICTURES]
        rows = [(caption, FRESH) for caption in captions]
        with answer.applied(self.model):
            images = generate_many(self.model, rows, demo.image_settings(), PICTURES)
        return round(float(self.judges.alignment(images, captions).mean()), 4)
