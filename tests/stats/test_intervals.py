"""Intervals of shares: the ends solve the equations of their tests, and they cover."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findnemo.errors import InputError
from findnemo.stats import clopper_pearson, wilson

Z = 1.959963984540054


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_ends_are_the_shares_that_a_score_test_just_allows(pair):
    hits, of = pair
    share = hits / of
    low, high = wilson(hits, of)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / of), abs=1e-9)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_ends_of_the_exact_interval_are_where_a_tail_is_just_as_rare_as_allowed(pair):
    hits, of = pair
    low, high = clopper_pearson(hits, of)
    assert (low == 0) == (hits == 0)
    assert (high == 1) == (hits == of)
    at_most = [_at_most(hits - 1, of, low), _at_most(hits, of, high)]
    assert hits == 0 or 1 - at_most[0] == pytest.approx(0.025, abs=1e-9)
    assert hits == of or at_most[1] == pytest.approx(0.025, abs=1e-9)


def _at_most(hits: int, of: int, share: float) -> float:
    return sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(hits + 1))


def test_it_covers_about_as_often_as_it_says():
    """Exact binomial probabilities over shares from .05 to .95."""
    n = 40
    covered = []
    for p in (k / 20 for k in range(1, 20)):
        inside = [k for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1]]
        covered.append(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in inside))
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.015)
    assert min(covered) > 0.9


@pytest.mark.parametrize(
    ("hits", "of", "level"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)]
)
def test_what_is_no_share_is_refused(hits, of, level):
    with pytest.raises(InputError):
        wilson(hits, of, level)
