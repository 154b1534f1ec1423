"""Growing a set: the first that leaves no copy, whatever the test says of the others."""

from __future__ import annotations

import random

import pytest

from findnemo import NeuronSet
from findnemo.localization.growth import grown

ORDER = [("a", k) for k in range(40)]


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("enough", [0, 1, 2, 3, 5, 16, 33, 37])
def test_where_more_never_hurts_it_is_the_shortest_extension(start, enough):
    first, rest = (
        NeuronSet.of(ORDER[:start]),
        [n for n in ORDER if n not in NeuronSet.of(ORDER[:start])],
    )
    asked = []

    def copies(neurons: NeuronSet) -> bool:
        asked.append(neurons)
        return len(neurons) < start + enough

    assert grown(first, ORDER, copies) == first | NeuronSet.of(rest[:enough])
    assert len(asked) == len(set(asked)) <= 2 + 2 * max(enough, 1).bit_length()


def test_a_set_that_leaves_no_copy_costs_one_look():
    asked = []
    neurons = NeuronSet({"b": [7]})
    assert grown(neurons, ORDER, lambda s: asked.append(s) or False) == neurons
    assert asked == [neurons]


@pytest.mark.parametrize("seed", range(30))
def test_where_it_is_not_monotone_what_comes_out_was_seen_to_leave_no_copy(seed):
    rng = random.Random(seed)
    verdicts = [rng.random() < 0.6 for _ in range(41)]
    first = NeuronSet({"b": [1]})
    found = grown(first, ORDER, lambda s: verdicts[len(s) - 1])
    if found is None:
        assert verdicts[40]
    else:
        assert not verdicts[len(found) - 1]
        assert first <= found
        assert found - first == NeuronSet.of(ORDER[: len(found) - 1])


def test_nothing_when_all_of_them_are_not_enough():
    assert grown(NeuronSet(), ORDER, lambda s: True) is None
    assert grown(NeuronSet(), [], lambda s: True) is None
