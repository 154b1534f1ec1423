"""A run at a glance: figures, histogram and shared neurons against counting by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findnemo.runs import Caption
from findnemo.runs.overview import figures, histogram, most_shared, per_layer

TAU = 0.5


def caption(
    k: int,
    score: float,
    neurons: dict | None = None,
    verify: dict | None = None,
    reached: bool = True,
) -> Caption:
    results: dict = {"detect": {"score": score, "memorized": score >= TAU, "tau": TAU}}
    if neurons is not None:
        results["localize"] = {
            "score_before": score,
            "score_after": 0.1,
            "neurons": neurons,
            "reached": reached,
            "memorized": True,
        }
    if verify is not None:
        results["verify"] = verify
    return Caption(k, f"caption {k}", k, None, None, results, {}, 1.0)


def checked(same: float, before: float, after: float) -> dict:
    return {"same_seed": same, "copies_before": before, "copies_after": after}


CAPTIONS = [
    caption(1, 0.9, {"a": [1, 2], "b": [7]}, checked(0.1, 1.0, 0.0)),
    caption(2, 0.8, {"a": [2]}, checked(0.6, 0.5, 0.25)),
    caption(3, 0.72, {"a": [2, 3], "b": [7]}, checked(0.1, 1.0, 1.0), reached=False),
    caption(4, 0.2),
    caption(5, 0.1),
]


def values(captions, quality=None):
    return [(f.value, f.of) for f in figures(captions, quality)]


def test_the_five_figures():
    assert values(CAPTIONS, {"prompts": 2, "pixel_change": 0.02}) == [
        (3, 5),
        (2, 3),  # one came back on fresh seeds, one is out of reach
        (1, 3),
        (3, None),  # a:1, a:2, b:7; what is out of reach stays on
        (0.02, None),
    ]


def test_what_is_not_known_yet_is_none():
    assert [v for v, _ in values([caption(1, 0.9)])] == [None] * 5  # no image was looked at
    assert [v for v, _ in values([], {"prompts": 0})] == [0, None, None, None, None]


def test_neurons_per_layer_and_shared_are_those_that_are_switched_off():
    assert per_layer(CAPTIONS, ["b", "a", "c"]) == {"b": 1, "a": 2, "c": 0}
    assert [(n, [c.id for c in cs]) for n, cs in most_shared(CAPTIONS)] == [(("a", 2), [1, 2])]
    three = [*CAPTIONS[:2], caption(6, 0.9, {"b": [7], "a": [2]})]
    assert [(n, len(cs)) for n, cs in most_shared(three)] == [(("a", 2), 3), (("b", 7), 2)]
    assert len(most_shared(three, 1)) == 1


@given(
    st.lists(st.floats(-1, 1, width=32), max_size=40),
    st.integers(1, 20),
    st.floats(-1, 1, width=32),
)
def test_every_score_is_in_one_bin_of_its_side_of_tau(scores, bins, tau):
    made = histogram([caption(k, s) for k, s in enumerate(scores)], tau, bins)
    assert sum(b.captions for b in made) == len(scores)
    assert sum(b.captions for b in made if b.low >= tau) == sum(s >= tau for s in scores)
    assert all(a.high == pytest.approx(b.low) for a, b in pairwise(made))


def test_a_histogram_needs_a_bin():
    with pytest.raises(ValueError, match="0 bins"):
        histogram(CAPTIONS, TAU, 0)


def test_a_histogram_counted_by_hand():
    made = histogram(CAPTIONS, TAU, 4)  # width .2: borders .1, .3, .5, .7, .9
    assert [(round(b.low, 3), b.captions) for b in made] == [
        (0.1, 2),
        (0.3, 0),
        (0.5, 0),
        (0.7, 2),
        (0.9, 1),
    ]
