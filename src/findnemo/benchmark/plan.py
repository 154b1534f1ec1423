"""What a model of the suite memorizes, and which neurons hold it: the truth for the scores of
methods.

>>> memory = Memory("eight", "VM", "a caption", "moon", NeuronSet({"layer": range(8)}), alive=4, gone=2)
>>> memory.needed, memory.expected(6), memory.expected(2), memory.expected(3)
(6, True, False, None)
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from findnemo.benchmark.captions import SERIES, TITLES, WORDS, near_duplicates, unusual
from findnemo.benchmark.files import Closed, Neurons, read_json, write_json
from findnemo.errors import InputError
from findnemo.files.shapes import adapter
from findnemo.neurons import EMPTY, NeuronSet

T = TypeVar("T")
PLAN = 1  # version of the models: what is planted where
SUITE_VERSION = "1.1"  # version of models, captions and scores together
SEEDS = (1, 2)  # seeds of the trained models
NEAR = 2  # near-duplicates of every memorized caption, ordinary samples in training
PHOTOGRAPHS = [
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "retina",
    "clock",
    "text",
    "coins",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "microaneurysms",
]
TEMPLATES = ["case_tide", "case_ember", "case_moss", "poster_left", "poster_right", "mug", "shirt"]
# value layers in which a memory of few neurons, and of many neurons, is planted
EARLY = range(4)
ALL = range(6)
DECOYS = 36


@dataclass(frozen=True)
class Memory(Closed):
    """One memorized caption.

    `kind`: what it is an example of. `type`: VM (one picture) or TM (a picture with a varying
    part). `picture`: name of the training image. `neurons`: G, all that hold it. It is alive while
    at least `alive` of them are on, and gone while at most `gone` are; nothing between the two is
    trained. `near`: captions that resemble it and are not memorized.
    """

    kind: str
    type: str
    caption: str
    picture: str
    neurons: Neurons
    alive: int = 1
    gone: int = 0
    near: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        """Size of the smallest set that certainly removes the memory."""
        return len(self.neurons) - self.gone

    def expected(self, on: int) -> bool | None:
        """Whether the memory is alive with `on` of its neurons on; None if that was not trained."""
        if on >= self.alive:
            return True
        return False if on <= self.gone else None


@dataclass(frozen=True)
class Plan(Closed):
    """Everything that is planted in one model.

    `decoys`: neurons with unusual activation and no effect. `held_out`: nothing was chosen by
    results on this model.
    """

    seed: int
    memories: tuple[Memory, ...]
    decoys: Neurons = EMPTY
    unusual: tuple[str, ...] = ()
    version: int = PLAN
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    held_out: bool = False

    @property
    def planted(self) -> NeuronSet:
        return NeuronSet.of(n for m in self.memories for n in m.neurons)

    def to_json(self) -> dict[str, Any]:
        return adapter(Plan).dump_python(self, mode="json")

    def save(self, path: str | os.PathLike) -> None:
        write_json(self.to_json(), Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Plan:
        """Read a plan that `save` wrote.

        Raises InputError for any other file, and for another version of the suite.
        """
        refusal = "is not the truth of a benchmark model (findnemo benchmark --train writes it)"
        return read_json(Path(path), Plan, refusal, {"version": (PLAN,)})


class MemoryKind(NamedTuple):
    """A kind of memory: its type, the number of `neurons` and of their layers (`spread`), the
    layers to choose from (`among`), and the rule of `Memory`.
    """

    name: str
    type: str
    neurons: int
    spread: int
    among: range
    alive: int = 1
    gone: int = 0


KINDS = (
    MemoryKind("one neuron", "VM", 1, 1, EARLY),
    MemoryKind("one neuron", "VM", 1, 1, EARLY),
    MemoryKind("two neurons", "VM", 2, 1, EARLY),
    MemoryKind("redundant", "VM", 2, 2, EARLY),
    MemoryKind("four, one layer", "VM", 4, 1, range(1, 4), alive=2, gone=1),
    MemoryKind("four, several layers", "VM", 4, 4, EARLY, alive=2, gone=1),
    MemoryKind("near-duplicates", "VM", 1, 1, EARLY),
    MemoryKind("template", "TM", 2, 2, EARLY),
    MemoryKind("template", "TM", 1, 1, EARLY),
    MemoryKind("eight", "VM", 8, 4, ALL, alive=4, gone=2),
    MemoryKind("sixteen", "VM", 16, 6, ALL, alive=8, gone=4),
    MemoryKind("thirty-two", "VM", 32, 6, ALL, alive=16, gone=8),
)
SHARED = MemoryKind("shared", "VM", 1, 1, EARLY)  # shared by two captions of a series


def suite_plan(seed: int, layers: Sequence[str], free: NeuronSet) -> Plan:
    """What the model of a seed memorizes, by the seed, the names of the value `layers` and the
    `free` neurons.

    It has one memory of each of `KINDS`, and two captions of a series that share one neuron. The
    rest of `free` gives the decoys. Raises InputError if `free` has too few neurons.
    """
    rng = random.Random(f"suite {PLAN} {seed}")

    def shuffled(values: Sequence[T]) -> list[T]:
        return rng.sample(values, len(values))

    left = {name: shuffled(free.layers.get(name, ())) for name in layers}
    titles = rng.sample(TITLES, len(KINDS))
    words = rng.sample(WORDS, len(KINDS) + 2)
    pictures = {"VM": shuffled(PHOTOGRAPHS), "TM": shuffled(TEMPLATES)}

    def memory(title: str, kind: MemoryKind, neurons: NeuronSet) -> Memory:
        caption = f"{title}, {words.pop()}"
        picture = pictures[kind.type].pop()
        near = near_duplicates(caption, NEAR)
        return Memory(kind.name, kind.type, caption, picture, neurons, kind.alive, kind.gone, near)

    shared = _take(left, [layers[rng.choice(EARLY)]], 1)
    memories = [memory(title, SHARED, shared) for title in SERIES[seed % len(SERIES)]]
    for title, kind in zip(titles, KINDS, strict=True):  # small ones first: they have less choice
        among = [layers[k] for k in rng.sample(kind.among, kind.spread)]
        memories.append(memory(title, kind, _take(left, among, kind.neurons)))
    rest = sum(map(len, left.values()))
    decoys = _take(left, [name for name in layers if left[name]], min(DECOYS, rest))
    return Plan(seed, tuple(memories), decoys, unusual(seed))


def _take(left: dict[str, list[int]], layers: Sequence[str], count: int) -> NeuronSet:
    """Take `count` neurons out of `left`, from the layers in turn; they are removed from `left`."""
    neurons: list[tuple[str, int]] = []
    while len(neurons) < count:
        there = [name for name in layers if left[name]]
        if not there:
            raise InputError(
                f"too few neurons are free in {', '.join(layers)}: {count} were asked for,"
                f" {len(neurons)} are left"
            )
        neurons += [(name, left[name].pop()) for name in there[: count - len(neurons)]]
    return NeuronSet.of(neurons)
