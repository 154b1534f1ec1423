"""Summaries of figures against numpy, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from findnemo.errors import InputError
from findnemo.stats import mean_std, median_mad

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(VALUES)
def test_they_equal_numpys(values):
    middle = np.median(values)
    assert median_mad(values) == pytest.approx(
        (middle, np.median(np.abs(np.array(values) - middle))), abs=1e-6
    )
    assert mean_std(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-4)


def test_median_and_mad_do_not_see_an_outlier():
    assert median_mad([0.1, 0.1, 0.2, 0.3, 1e9]) == pytest.approx((0.2, 0.1))


def test_a_single_value_has_no_spread():
    assert median_mad([0.3]) == mean_std([0.3]) == (0.3, 0.0)


@pytest.mark.parametrize("summary", [median_mad, mean_std])
def test_nothing_and_nan_are_refused(summary):
    with pytest.raises(InputError, match="no values to sum up"):
        summary([])
    with pytest.raises(InputError, match="value 1 of 3 is nan"):
        summary([1, math.nan, 3])
