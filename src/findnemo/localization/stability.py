"""Do repetitions find the same neurons?

Intersection over union of sets and how often each neuron is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from findnemo.errors import InputError
from findnemo.neurons import Neuron, NeuronSet


def iou(one: NeuronSet, other: NeuronSet) -> float:
    """Intersection over union of two sets, 0 to 1; 1 for two empty ones.

    >>> round(iou(NeuronSet({"a": [0, 1]}), NeuronSet({"a": [1, 2]})), 3)
    0.333
    """
    return len(one & other) / len(one | other) if len(one | other) else 1.0


def pairwise_iou(sets: Sequence[NeuronSet]) -> list[float]:
    """Intersection over union of every pair of sets, n (n - 1) / 2 values."""
    return [iou(one, other) for one, other in combinations(sets, 2)]


def frequency(sets: Sequence[NeuronSet]) -> dict[Neuron, float]:
    """Every neuron of any set -> share of the sets that hold it, the most frequent first.

    >>> frequency([NeuronSet({"a": [0, 1]}), NeuronSet({"a": [1]})])
    {('a', 1): 1.0, ('a', 0): 0.5}
    """
    if not sets:
        raise InputError("no sets: a frequency is a share of one set or more")
    counts = Counter(n for s in sets for n in s)
    return {
        n: count / len(sets)
        for n, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    }
