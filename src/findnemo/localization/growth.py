"""Growing a set on finished images: a smallest set can satisfy the score and still leave a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from findnemo.neurons import Neuron, NeuronSet


def grown(
    neurons: NeuronSet, order: Sequence[Neuron], copies: Callable[[NeuronSet], bool]
) -> NeuronSet | None:
    """`neurons` and as few more as it takes until `copies` says no; None if not even all of `order` is enough.

    The next neurons of `order` join in steps of 1, 2, 4, ...; then bisection. `copies(neurons)` tells whether finished images with
    them off are still copies. Takes O(log n) of those tests; one if nothing is to be done.

    >>> grown(NeuronSet({"a": [0]}), [("a", 0), ("b", 1), ("b", 2)], lambda s: ("b", 1) not in s)
    NeuronSet({'a': (0,), 'b': (1,)})
    """
    more = [n for n in order if n not in neurons]
    low, high = -1, 0
    while copies(_with(neurons, more[:high])):
        if high >= len(more):
            return None
        low, high = high, min(max(2 * high, 1), len(more))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if copies(_with(neurons, more[:middle])) else (low, middle)
    return _with(neurons, more[:high])


def _with(neurons: NeuronSet, more: Sequence[Neuron]) -> NeuronSet:
    return neurons | NeuronSet.of(more)
