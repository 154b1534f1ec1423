"""Small sets that suffice: pure functions of an order and a test, the same for every ranking.

`sufficient(neurons)` says whether the memory is gone with `neurons` off. Nothing here needs it to
be monotone: what is returned has been tested, and a last pass certifies that nothing in it can be
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from findnemo.neurons import Neuron, NeuronSet

LARGE = 16

Test = Callable[[NeuronSet], bool]


def sufficient_prefix(order: Sequence[Neuron], sufficient: Test) -> NeuronSet | None:
    """A short prefix of `order` that suffices: galloping (1, 2, 4, ...), then bisection; None if
    not even all of it does.

    If more neurons never hurt it is the shortest. Takes O(log n) tests.

    >>> sufficient_prefix([("a", 3), ("b", 1), ("a", 0)], lambda s: ("b", 1) in s)
    NeuronSet({'a': (3,), 'b': (1,)})
    """
    low, high = 0, 1
    while not sufficient(NeuronSet.of(order[:high])):
        if high >= len(order):
            return None
        low, high = high, min(2 * high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        if sufficient(NeuronSet.of(order[:middle])):
            high = middle
        else:
            low = middle
    return NeuronSet.of(order[:high])


def minimize(
    neurons: NeuronSet,
    sufficient: Test,
    order: Sequence[Neuron],
    needed: Callable[[NeuronSet], list[Neuron]],
) -> NeuronSet:
    """A 1-minimal subset of a set that suffices: leave out any one neuron, and the memory is back.

    Neurons are left out in halves, those first that `order` ranks last; what is kept is certified
    one by one. `needed(neurons)` gives those proven to be needed, at a cost that grows with the
    set: a large set is halved first. Repeats until nothing can go, which where the test is monotone
    is once.
    """
    while True:
        proven = set(needed(neurons)) if len(neurons) <= LARGE else set()
        spare = [n for n in reversed(order) if n in neurons and n not in proven]
        smaller = _drop(neurons, spare, sufficient) if spare else neurons
        if smaller == neurons:  # all are needed: proven, or each left out by itself in vain
            return neurons
        neurons = smaller


def _drop(neurons: NeuronSet, spare: Sequence[Neuron], sufficient: Test) -> NeuronSet:
    """Leave out as many of `spare` as can be: all at once, else half by half."""
    rest = neurons - NeuronSet.of(spare)
    if sufficient(rest):
        return rest
    if len(spare) == 1:
        return neurons
    half = (len(spare) + 1) // 2
    return _drop(_drop(neurons, spare[:half], sufficient), spare[half:], sufficient)
