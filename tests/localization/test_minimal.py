"""Small sufficient sets against brute force over all subsets, also where more
neurons off do not always help.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from findnemo import NeuronSet
from findnemo.localization.minimal import minimize, sufficient_prefix

NEURONS = [("a", 0), ("a", 1), ("b", 0), ("b", 3), ("c", 2), ("c", 7)]
SUBSETS = [NeuronSet.of(c) for n in range(1, len(NEURONS) + 1) for c in combinations(NEURONS, n)]
orders = st.permutations(NEURONS)
# a memory dies when all neurons of any one of these sets are off: every monotone test has this form
monotone = st.lists(st.sets(st.sampled_from(NEURONS), min_size=1), min_size=1, max_size=4)
any_table = st.sets(st.sampled_from(SUBSETS)).map(lambda table: table | {NeuronSet.of(NEURONS)})


class Counted:
    """A test that counts how often it is asked."""

    def __init__(self, answer: Callable[[NeuronSet], bool]):
        self.answer = answer
        self.asked = 0

    def __call__(self, neurons: NeuronSet) -> bool:
        self.asked += 1
        return self.answer(neurons)


def kills(sets: list[set]) -> Counted:
    return Counted(lambda off: any(all(n in off for n in s) for s in sets))


def one_minimal(neurons: NeuronSet, sufficient: Callable[[NeuronSet], bool]) -> bool:
    return sufficient(neurons) and not any(sufficient(neurons - NeuronSet.of([n])) for n in neurons)


@given(orders, monotone)
def test_the_prefix_is_the_shortest_one_where_more_never_hurts(order, sets):
    sufficient = kills(sets)
    found = sufficient_prefix(order, sufficient)
    lengths = [n for n in range(1, len(order) + 1) if kills(sets)(NeuronSet.of(order[:n]))]
    assert found == NeuronSet.of(order[: min(lengths)])
    assert sufficient.asked <= 6  # galloping to 1, 2, 4, 6 and bisecting 4..6 or 2..4


@given(orders, any_table)
def test_the_prefix_suffices_whatever_the_test_is(order, table):
    found = sufficient_prefix(order, table.__contains__)
    assert found in table
    assert found == NeuronSet.of(order[: len(found)])


def test_no_prefix_suffices_where_not_even_all_neurons_do():
    assert sufficient_prefix(NEURONS, lambda off: False) is None


@given(orders, monotone, st.data())
def test_what_remains_is_one_of_the_minimal_sets(order, sets, data):
    sufficient = kills(sets)
    start = data.draw(st.sampled_from([s for s in SUBSETS if kills(sets)(s)]))
    proven = lambda off: [n for n in off if not kills(sets)(off - NeuronSet.of([n]))]  # noqa: E731
    found = minimize(start, sufficient, order, proven)
    minimal = [s for s in SUBSETS if s <= start and one_minimal(s, kills(sets))]
    assert found in minimal


@given(orders, any_table, st.data())
def test_what_remains_is_one_minimal_whatever_the_test_is_and_however_little_is_proven(
    order, table, data
):
    start = data.draw(st.sampled_from(sorted(table, key=len)))
    sufficient = lambda off: off in table  # noqa: E731

    def proven(off: NeuronSet) -> list:
        """Some of those that are needed: one seed does not show them all."""
        needed = [n for n in off if not sufficient(off - NeuronSet.of([n]))]
        return needed[: data.draw(st.integers(0, len(needed)))]

    found = minimize(start, sufficient, order, proven)
    assert found <= start
    assert one_minimal(found, sufficient)


def test_the_spare_ones_go_at_once():
    start = NeuronSet({"a": range(60, 70)})
    sufficient = Counted(lambda off: ("a", 63) in off)
    found = minimize(start, sufficient, list(start), lambda off: [n for n in off if n == ("a", 63)])
    assert found == NeuronSet({"a": [63]})
    assert sufficient.asked == 1


def test_without_any_proof_halving_finds_one_neuron_among_a_hundred_in_few_tests():
    start = NeuronSet({"a": range(100)})
    sufficient = Counted(lambda off: ("a", 63) in off)
    assert minimize(start, sufficient, list(start), lambda off: []) == NeuronSet({"a": [63]})
    assert sufficient.asked <= 20
