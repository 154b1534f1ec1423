"""Wilson intervals: the ends solve the equation of the score test, and they cover."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findnemo.errors import InputError
from findnemo.stats import wilson

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
