"""Error rates of detection: the promise of a conformal threshold, p-values, and lists with a
controlled share of false discoveries.

All of it rests on one assumption: an ordinary caption is drawn like the hold-out captions (they are
exchangeable). Sources: Vovk, Gammerman and Shafer 2005 (conformal p-values); Vovk 2012 (what holds
for one calibration); Benjamini and Hochberg 1995; Bates, Candes, Lei, Romano and Sesia 2023
(Testing for outliers with conformal p-values: why their list may be made from these p-values).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from findnemo.errors import InputError

CONFIDENCE = 0.95


def rank(n: int, fpr: float, confidence: float | None = None) -> int:
    """Which of n hold-out scores, counted from the smallest, an ordinary caption exceeds with
    probability at most `fpr`.

    Without `confidence` it is ceil((n + 1)(1 - fpr)): at most `fpr` on average over calibrations.
    With it, it is the smallest k for which the rate of this one calibration, distributed as Beta(n
    + 1 - k, k), is at most `fpr` with that confidence. Raises InputError for a rate or confidence
    outside (0, 1), or too few scores, with the number needed.

    >>> rank(999, 0.01), rank(999, 0.01, confidence=0.95)
    (990, 995)
    """
    for name, value in (("fpr", fpr), ("confidence", confidence)):
        if value is not None and not 0 < value < 1:
            raise InputError(f"{name} {value} is not a rate between 0 and 1")
    if confidence is None:
        k = math.ceil(round((n + 1) * (1 - fpr), 9))
        needed = math.ceil(round(1 / fpr, 9)) - 1
    else:
        from scipy.stats import binom

        at_least = binom.sf(range(n), n, fpr)  # P(X >= j) for j = 1 .. n, X binomial
        k = n + 1 - int((at_least >= confidence).sum())
        needed = math.ceil(round(math.log(1 - confidence) / math.log(1 - fpr), 9))
    if k > n:
        sure = "" if confidence is None else f" with {confidence:.0%} confidence"
        raise InputError(
            f"{n} hold-out prompts are too few for a false-positive rate of {fpr}{sure}: it takes"
            f" {needed}"
        )
    return k


def rate_bound(n: int, k: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound, at a confidence, of the realised false-alarm rate of a threshold at the k-th
    smallest of n scores.

    Over calibrations that rate is distributed as Beta(n + 1 - k, k), whatever the scores'
    distribution; with ties it is smaller (Vovk 2012).

    >>> round(rate_bound(1000, 991), 4)
    0.0157
    """
    from scipy.special import betaincinv

    return float(betaincinv(n + 1 - k, k, confidence))


def p_value(score: float, holdout: Tensor) -> float:
    """(1 + number of hold-out scores at least as large) / (n + 1): at most u with probability at
    most u for an ordinary caption.

    `holdout`: (n,) scores over all seeds. A `score` after fewer seeds gives a p-value that is too
    large, never too small, whatever made it stop: the largest pairwise similarity never falls with
    more seeds. (If the mean counts, all seeds are computed.)

    >>> import torch
    >>> p_value(0.35, torch.tensor([0.2, 0.3, 0.4]))
    0.5
    """
    return (1 + int((holdout.double() >= score).sum())) / (len(holdout) + 1)


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (q).

    Those with q <= level form a list with an expected share of false ones of at most that level.

    >>> [round(q, 3) for q in adjusted([0.01, 0.9, 0.03])]
    [0.03, 0.9, 0.045]
    """
    from scipy.stats import false_discovery_control

    return [float(q) for q in false_discovery_control(p)]


def least_listed(tests: int, level: float, holdout: int) -> int:
    """The smallest non-empty list at a level among `tests` captions: how many must be above all
    hold-out scores, at 1 / (n + 1) each.

    >>> least_listed(1000, 0.1, 499)
    20
    """
    return math.ceil(round(tests / (level * (holdout + 1)), 9))


def holdout_needed(tests: int, level: float, together: int = 1) -> int:
    """The number of hold-out scores needed so that `together` captions above all of them, among
    `tests` in all, can be listed at a level.

    A p-value is at least 1 / (n + 1), and Benjamini and Hochberg's list takes r of them if they are
    at most level r / tests.

    >>> holdout_needed(1000, 0.1), holdout_needed(1000, 0.1, together=20)
    (9999, 499)
    """
    return math.ceil(round(tests / (level * together), 9)) - 1
