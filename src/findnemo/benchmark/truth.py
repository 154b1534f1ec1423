"""One model of the suite with its truth, and the measured rule that its memories were trained
with.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from findnemo import demo
from findnemo.benchmark.plan import Memory, Plan
from findnemo.calibration import Calibration
from findnemo.edits import deactivate
from findnemo.metrics.copies import COPY
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.scores import memorization_score
from findnemo.verification import finished, fresh, nearest, same_seed_of_memory

DRAWS = 3  # random subsets for each size
SEEDS = 10
IMAGES = 4


@dataclass(frozen=True)
class Member:
    """One model of the suite.

    `reference`: captions that methods may compare with. `unrelated`: captions that must not change.
    """

    name: str
    model: Model
    plan: Plan
    calibration: Calibration
    pictures: Path
    reference: tuple[str, ...]
    unrelated: tuple[str, ...]

    def picture(self, memory: Memory) -> Image.Image:
        return Image.open(self.pictures / f"{memory.picture}.png").convert("RGB")


def measured(member: Member) -> dict[str, Any]:
    """Caption -> `measure` of its memory."""
    descriptor = demo.judges().descriptor
    return {m.caption: measure(member, m, descriptor) for m in member.plan.memories}


def measure(member: Member, memory: Memory, descriptor: Any) -> dict[str, Any]:
    """How a memory behaves on fresh seeds with all, just enough, just too few and none of its
    neurons on.

    `score`, `copies` (median descriptor similarity of finished images to the training image): with
    all on. `off` and `off_copies` (largest same-seed similarity, copies): with none on. `enough`,
    `few`: for random subsets of `alive` and of `gone` neurons on, the largest same-seed similarity.
    `near`: copies of each near-duplicate. `learned`: alive with all, gone with none.
    """
    model = member.model
    picture = member.picture(memory)
    probe = fresh(model, memory.caption, member.calibration.settings, SEEDS)
    unblocked = probe.deltas()

    def same(off: NeuronSet) -> float:
        return round(same_seed_of_memory(unblocked, probe.deltas(off), probe.settings), 4)

    def copies(caption: str, off: NeuronSet = EMPTY) -> float:
        images = finished(model, caption, IMAGES, demo.image_settings(), deactivate(model, off))
        return round(float(nearest(images, [picture], descriptor).median()), 4)

    tau = member.calibration.tau
    score = memorization_score(unblocked, probe.settings.similarity, probe.settings.pairs)
    values: dict[str, Any] = {
        "score": round(score, 4),
        "copies": copies(memory.caption),
        "off": same(memory.neurons),
        "off_copies": copies(memory.caption, memory.neurons),
        "enough": [same(off) for off in _off(memory, memory.alive)],
        "few": [same(off) for off in _off(memory, memory.gone)],
        "near": {c: copies(c) for c in memory.near},
    }
    copied = memory.type != "VM" or values["copies"] >= COPY
    alive = probe.settings.reaches(values["score"], tau) and copied
    gone = values["off"] <= tau and values["off_copies"] < COPY
    return values | {"learned": alive and gone}


def _off(memory: Memory, on: int) -> list[NeuronSet]:
    """Random subsets to switch off so that `on` neurons stay on; none if `on` is no neuron or
    all.
    """
    if on in (0, len(memory.neurons)):
        return []
    rng = random.Random(f"truth {memory.caption} {on}")
    neurons = list(memory.neurons)
    return [NeuronSet.of(rng.sample(neurons, len(neurons) - on)) for _ in range(DRAWS)]
