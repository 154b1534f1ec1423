"""Early ends: after how few seeds it is certain that a caption is not memorized, if the mean of all
pairs counts.

SSIM is a kernel: k(x, y) = (2xy + c) / (x^2 + y^2 + c) of local means, and the analogous term of
local covariances, are products of positive semidefinite functions. So are their product and its
mean over positions, and SSIM(x, x) = 1. So n noise differences are n unit vectors whose inner
products are their similarities. The mean S_n of all pairs gives the length r_n of their sum: r_n^2
= n + n (n - 1) S_n. A further vector makes the sum longer by at most 1. Hence a caption can reach
tau with n seeds only if r_k >= r_n(tau) - (n - k) after k of them. Below that score nothing is
lost, for any caption.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from findnemo.errors import InputError
from findnemo.settings import Settings
from findnemo.stats.rates import CONFIDENCE, rank

MISS = 0.005
# rounding of a similarity in float32
SLACK = 1e-4
# no bound is higher than this: under it no memory of four models (52 memories) was lost, in any
# order of its seeds (docs/error-rates.md)
MEMORIES = 0.5


def length(score: Tensor, seeds: int) -> Tensor:
    """Length of the sum of `seeds` unit vectors with inner products of `score` on average."""
    return (seeds + seeds * (seeds - 1) * score.double()).clamp(min=0).sqrt()


def mean_of_pairs(length: Tensor, seeds: int) -> Tensor:
    """The score of `seeds` unit vectors whose sum has this length: the inverse of `length`."""
    return (length.square() - seeds) / (seeds * (seeds - 1))


def least_before(score: Tensor, seen: int, seeds: int) -> Tensor:
    """The smallest possible score after `seen` seeds of a caption whose score over all `seeds` is
    `score`.

    >>> least_before(torch.tensor([0.68, 0.9]), 3, 4).numpy().round(2)
    array([0.53, 0.85])
    """
    return mean_of_pairs((length(score, seeds) - (seeds - seen)).clamp(min=0), seen)


def least_after(score: Tensor, seen: int, seeds: int) -> Tensor:
    """The smallest possible score over all `seeds` of a caption whose score after `seen` is
    `score`.
    """
    return mean_of_pairs((length(score, seen) - (seeds - seen)).clamp(min=0), seeds)


def steadiness(trajectories: Tensor) -> Tensor:
    """How far captions stay from the worst case, (n,), from their scores after 2, 3, ... seeds (n,
    seeds - 1).

    0: after some number of seeds, the score is the smallest from which the last one can be reached.
    1: it is never under the last one. In between it is the largest share a of the way between these
    two, raised to a power (`_power`), at which a threshold equal to the caption's own final score
    would still find it. Its distribution is about the same for captions of all scores, ordinary
    ones and memories (docs/error-rates.md); that of a score after few seeds is not.
    """
    last = trajectories[:, -1]
    seeds = trajectories.shape[1] + 1
    shares = [torch.ones(len(last), dtype=torch.float64)]
    for seen in range(2, seeds):
        least = least_before(last, seen, seeds)
        room = last - least  # zero at a score of 1
        way = torch.where(room < SLACK, 1.0, (trajectories[:, seen - 2] - least) / room)
        shares.append(way.clamp(0, 1) ** _power(seen, seeds))
    return torch.stack(shares).amin(0)


def _power(seen: int, seeds: int) -> float:
    """The exponent that divides the permitted loss between looks.

    For four seeds it is 1.5 and 1, so that the bounds after two and three seeds lose about as much.
    The promise holds for any exponent.
    """
    return (seeds - seen + 1) / 2


def early_bounds(
    trajectories: Tensor, tau: float, settings: Settings, miss: float = MISS
) -> dict[int, float]:
    """Seeds seen -> the score under which a caption is not memorized; empty if only all seeds can
    decide (`ends_early`).

    `trajectories`: (n, seeds - 1) scores of hold-out captions after 2, 3, ... seeds. Of the
    captions that reach `tau` with all seeds, and are as steady (`steadiness`) as hold-out captions,
    at most a share `miss` is lost, with 95 % confidence (an order statistic: `rates.rank`). If
    there are too few hold-out captions for that (598 for .005), or `miss` is 0, the result is the
    bounds under which no caption can reach tau. Raises InputError for a `miss` outside [0, 1).

    >>> steady = torch.full((600, 3), 0.5)
    >>> {k: round(b, 2) for k, b in early_bounds(steady, 0.68, Settings(samples=4, pairs="mean")).items()}
    {2: 0.47, 3: 0.61}
    >>> {k: round(b, 2) for k, b in early_bounds(steady[:9], 0.68, Settings(samples=4, pairs="mean")).items()}
    {2: 0.11, 3: 0.53}
    """
    if not 0 <= miss < 1:
        raise InputError(f"--miss {miss} is not a share of at least 0 and less than 1")
    if not ends_early(settings):
        return {}
    share = _share(steadiness(trajectories), miss)
    bounds = {}
    for seen in range(2, settings.samples):
        least = float(least_before(torch.tensor(tau), seen, settings.samples))
        way = share ** (1 / _power(seen, settings.samples)) * (tau - least)
        bounds[seen] = least + max(way - SLACK, -SLACK)
    return bounds


def _share(steady: Tensor, miss: float) -> float:
    """The steadiness that all but a share `miss` of captions have; 0 if there are too few to
    tell.
    """
    try:
        kth = rank(len(steady), miss, CONFIDENCE) if miss else 0
    except InputError:
        return 0.0
    return min(float(steady.sort(descending=True).values[kth - 1]), MEMORIES) if kth else 0.0


def ends_early(settings: Settings) -> bool:
    """Whether few seeds can show that a caption is not memorized: only if the mean of all pairs of
    SSIM counts.

    If the largest pair counts, any two seeds can give it.
    """
    return settings.pairs == "mean" and settings.similarity == "ssim"


def promised(trajectories: Tensor, miss: float) -> float:
    """The largest share of memories that an early end loses: `miss`, or 0 if the hold-out captions
    are too few to permit any.
    """
    return miss if _share(steadiness(trajectories), miss) > 0 else 0.0


def holdout_for(miss: float) -> int:
    """The number of hold-out captions needed to promise that at most a share `miss` is lost.

    >>> holdout_for(0.005)
    598
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - miss))
