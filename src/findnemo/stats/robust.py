"""Summaries of figures: median and MAD over the seeds of a prompt, mean and standard deviation over
prompts (Finding NeMo, section 4).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from findnemo.errors import InputError


def median_mad(values: Iterable[float]) -> tuple[float, float]:
    """The median and the median absolute deviation from it; for an even number of values, the mean
    of the middle two.

    Raises InputError if there are no values, or one is NaN.

    >>> median_mad([1, 2, 3, 10])
    (2.5, 1.0)
    """
    # not scipy's median_abs_deviation: this needs no array, and imports nothing that takes time
    known = _known(values)
    middle = statistics.median(known)
    return middle, statistics.median(abs(v - middle) for v in known)


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """The mean and the unbiased standard deviation (0 for a single value, which shows no spread).

    Raises InputError if there are no values, or one is NaN.

    >>> mean_std([1, 2, 3])
    (2.0, 1.0)
    """
    known = _known(values)
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0


def _known(values: Iterable[float]) -> list[float]:
    known = [float(v) for v in values]
    if not known:
        raise InputError("no values to sum up: give at least one")
    bad = [k for k, v in enumerate(known) if not math.isfinite(v)]
    if bad:
        raise InputError(
            f"value {bad[0]} of {len(known)} is {known[bad[0]]}: leave out failed values, and say"
            " so"
        )
    return known
