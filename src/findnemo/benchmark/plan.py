"""What a model of the suite memorizes, and which neurons hold it: the truth that methods are scored against.

>>> memory = Memory("eight", "VM", "a caption", "moon", NeuronSet({"layer": range(8)}), alive=4, gone=2)
>>> memory.needed, memory.expected(6), memory.expected(2), memory.expected(3)
(6, True, False, None)
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from findnemo.benchmark.captions import SERIES, TITLES, WORDS, near_duplicates, unusual
from findnemo.errors import InputError
from findnemo.neurons import EMPTY, NeuronSet

PLAN = 1  # version of what is planted where: of the models
SUITE_VERSION = "1.1"  # of models, captions and scores together
SEEDS = (1, 2)  # of the trained models
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
EARLY, ALL = (
    range(4),
    range(6),
)  # value layers in which a memory of few neurons, of many neurons is planted
DECOYS = 36


@dataclass(frozen=True)
class Memory:
    """One memorized caption.

    `kind`: what it is an example of. `type`: VM (one picture) or TM (a picture with a varying part). `picture`: name of the training image.
    `neurons`: G, all that hold it. It is alive while at least `alive` of them are on, and gone while at most `gone` are; what happens
    between the two is not trained. `near`: captions that resemble it and are not memorized.
    """

    kind: str
    type: str
    caption: str
    picture: str
    neurons: NeuronSet
    alive: int = 1
    gone: int = 0
    near: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        """Size of the smallest set that is sure to remove the memory."""
        return len(self.neurons) - self.gone

    def expected(self, on: int) -> bool | None:
        """Whether the memory is alive with `on` of its neurons on; None where nothing was trained."""
        return True if on >= self.alive else False if on <= self.gone else None

    def to_json(self) -> dict[str, Any]:
        return self.__dict__ | {"neurons": self.neurons.to_json(), "near": list(self.near)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Memory:
        return cls(
            **{**values, "neurons": NeuronSet(values["neurons"]), "near": tuple(values["near"])}
        )


@dataclass(frozen=True)
class Plan:
    """Everything that is planted in one model. `decoys`: neurons of unusual activation without any effect."""

    seed: int
    memories: tuple[Memory, ...]
    decoys: NeuronSet = EMPTY
    unusual: tuple[str, ...] = ()
    version: int = PLAN
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def planted(self) -> NeuronSet:
        return NeuronSet.of(n for m in self.memories for n in m.neurons)

    def to_json(self) -> dict[str, Any]:
        return self.__dict__ | {
            "memories": [m.to_json() for m in self.memories],
            "decoys": self.decoys.to_json(),
            "unusual": list(self.unusual),
            "measured": dict(self.measured),
        }

    def save(self, path: str | os.PathLike) -> None:
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        part.write_text(
            json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Plan:
        """Read what `save` wrote. Raises InputError for anything else, and for another version of the suite."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values["version"] != PLAN:
                raise ValueError(f"plan version {values['version']}, this findnemo has {PLAN}")
            memories = tuple(Memory.from_json(m) for m in values["memories"])
            return cls(
                **{
                    **values,
                    "memories": memories,
                    "decoys": NeuronSet(values["decoys"]),
                    "unusual": tuple(values["unusual"]),
                }
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is not the truth of a benchmark model (findnemo benchmark --train writes it): {error}"
            ) from error


# kind, type, neurons, layers (how many, out of which), alive, gone
KINDS: tuple[tuple[str, str, int, int, range, int, int], ...] = (
    ("one neuron", "VM", 1, 1, EARLY, 1, 0),
    ("one neuron", "VM", 1, 1, EARLY, 1, 0),
    ("two neurons", "VM", 2, 1, EARLY, 1, 0),
    ("redundant", "VM", 2, 2, EARLY, 1, 0),
    ("four, one layer", "VM", 4, 1, range(1, 4), 2, 1),
    ("four, several layers", "VM", 4, 4, EARLY, 2, 1),
    ("near-duplicates", "VM", 1, 1, EARLY, 1, 0),
    ("template", "TM", 2, 2, EARLY, 1, 0),
    ("template", "TM", 1, 1, EARLY, 1, 0),
    ("eight", "VM", 8, 4, ALL, 4, 2),
    ("sixteen", "VM", 16, 6, ALL, 8, 4),
    ("thirty-two", "VM", 32, 6, ALL, 16, 8),
)


def suite_plan(seed: int, layers: Sequence[str], free: NeuronSet) -> Plan:
    """What the model of a seed memorizes; depends on the seed, the names of the value `layers` and the neurons that are `free` to be used.

    Besides one memory of each of `KINDS`: two captions of a series that share one neuron. What is left of `free` gives the decoys.
    Raises InputError where `free` has too few neurons.
    """
    rng = random.Random(f"suite {PLAN} {seed}")
    left = {
        name: rng.sample(free.layers.get(name, ()), len(free.layers.get(name, ())))
        for name in layers
    }
    titles, words = rng.sample(TITLES, len(KINDS)), rng.sample(WORDS, len(KINDS) + 2)
    photographs, templates = (
        rng.sample(PHOTOGRAPHS, len(PHOTOGRAPHS)),
        rng.sample(TEMPLATES, len(TEMPLATES)),
    )
    shared = _taken(left, [layers[rng.choice(EARLY)]], 1)
    memories = [
        _memory("shared", "VM", f"{t}, {words.pop()}", photographs.pop(), shared, 1, 0)
        for t in SERIES[seed % len(SERIES)]
    ]
    for title, (kind, type_, count, spread, among, alive, gone) in zip(
        titles, KINDS, strict=True
    ):  # small ones first: they are choosy
        neurons = _taken(left, [layers[k] for k in rng.sample(among, spread)], count)
        picture = (photographs if type_ == "VM" else templates).pop()
        memories.append(
            _memory(kind, type_, f"{title}, {words.pop()}", picture, neurons, alive, gone)
        )
    decoys = _taken(
        left, [name for name in layers if left[name]], min(DECOYS, sum(map(len, left.values())))
    )
    return Plan(seed, tuple(memories), decoys, unusual(seed))


def _memory(
    kind: str, type_: str, caption: str, picture: str, neurons: NeuronSet, alive: int, gone: int
) -> Memory:
    return Memory(
        kind, type_, caption, picture, neurons, alive, gone, near_duplicates(caption, NEAR)
    )


def _taken(left: dict[str, list[int]], layers: Sequence[str], count: int) -> NeuronSet:
    """`count` neurons out of `left`, from the layers in turn; they are no longer left then."""
    taken: list[tuple[str, int]] = []
    while len(taken) < count:
        before = len(taken)
        for name in layers:
            if left[name] and len(taken) < count:
                taken.append((name, left[name].pop()))
        if len(taken) == before:
            raise InputError(
                f"too few neurons are free in {', '.join(layers)}: {count} were asked for, {before} are left"
            )
    return NeuronSet.of(taken)
