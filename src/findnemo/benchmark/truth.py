"""Is what was planted there? The rule that a memory was trained with, measured on the trained model."""

from __future__ import annotations

import random
from typing import Any

from findnemo import demo
from findnemo.benchmark.member import Member
from findnemo.benchmark.plan import Memory
from findnemo.edits import deactivate
from findnemo.images import generate
from findnemo.metrics.copies import COPY
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.deltas import Probe
from findnemo.scores import SIMILARITIES, memorization_score
from findnemo.seeds import FRESH

DRAWS = 3  # random subsets of each size
IMAGES = 4


def measured(member: Member) -> dict[str, Any]:
    """Caption -> `measure` of its memory."""
    judge = demo.judges().descriptor
    return {m.caption: measure(member, m, judge) for m in member.plan.memories}


def measure(member: Member, memory: Memory, judge: Any) -> dict[str, Any]:
    """What a memory does with all, with just enough, with just too few and with none of its neurons on, on fresh seeds.

    `score`, `copies` (median descriptor similarity of finished images to the training image) with all on; `off` and `off_copies` (largest
    same-seed similarity, copies) with none on; `enough`, `few`: for random subsets of `alive` and of `gone` neurons on, the largest same-seed
    similarity. `near`: for each near-duplicate, copies. `learned`: alive with all, gone with none.
    """
    probe = Probe(
        member.model, memory.caption, member.calibration.settings, range(FRESH, FRESH + 10)
    )
    alike, unblocked = SIMILARITIES[probe.settings.similarity], probe.deltas()

    def same(off: NeuronSet) -> float:
        return round(float(alike(unblocked, probe.deltas(off)).max()), 4)

    def copies(caption: str, off: NeuronSet = EMPTY) -> float:
        with deactivate(member.model, off):
            images = generate(
                member.model, caption, range(FRESH, FRESH + IMAGES), demo.image_settings()
            )
        return round(float(judge.similarity(images, [member.picture(memory)]).median()), 4)

    tau = member.calibration.tau
    values: dict[str, Any] = {
        "score": round(
            memorization_score(unblocked, probe.settings.similarity, probe.settings.pairs), 4
        ),
        "copies": copies(memory.caption),
        "off": same(memory.neurons),
        "off_copies": copies(memory.caption, memory.neurons),
        "enough": [same(off) for off in _off(memory, memory.alive)],
        "few": [same(off) for off in _off(memory, memory.gone)],
        "near": {c: copies(c) for c in memory.near},
    }
    there = probe.settings.reaches(values["score"], tau) and (
        memory.type != "VM" or values["copies"] >= COPY
    )
    return values | {"learned": there and values["off"] <= tau and values["off_copies"] < COPY}


def _off(memory: Memory, on: int) -> list[NeuronSet]:
    """Random subsets to switch off so that `on` neurons stay on; none where the size says it all."""
    if on in (0, len(memory.neurons)):
        return []
    rng, neurons = random.Random(f"truth {memory.caption} {on}"), list(memory.neurons)
    return [NeuronSet.of(rng.sample(neurons, len(neurons) - on)) for _ in range(DRAWS)]
