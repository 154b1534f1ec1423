"""Do repetitions find the same neurons? Intersection over union of sets, how often each neuron is found, and their consensus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

from findnemo.errors import InputError
from findnemo.localization.minimal import sufficient_prefix
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


def consensus_of(sets: Sequence[NeuronSet], gone: Callable[[NeuronSet], bool]) -> NeuronSet:
    """The neurons that more than half of the sets hold, and as many more, in order of frequency, as it takes until `gone` says yes.

    `gone(neurons)`: whether the memory is gone with them off. The union of all sets if nothing less suffices.

    >>> sets = [NeuronSet({"a": [0, 1]}), NeuronSet({"a": [1, 2]}), NeuronSet({"a": [1]})]
    >>> consensus_of(sets, lambda s: ("a", 1) in s)
    NeuronSet({'a': (1,)})
    """
    shares = frequency(sets)
    most = NeuronSet.of(n for n, share in shares.items() if share > 0.5)
    if gone(most):
        return most
    others = [n for n in shares if n not in most]
    added = sufficient_prefix(others, lambda more: gone(most | more)) if others else None
    return NeuronSet.of(shares) if added is None else most | added
