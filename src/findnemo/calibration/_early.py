"""Early ends: after how few seeds a caption is known not to be memorized, where the mean of all
pairs counts.

SSIM is a kernel: k(x, y) = (2xy + c) / (x^2 + y^2 + c) of local means, and the same of local
covariances, are products of positive semidefinite functions, their product and its mean over
positions is one again, and SSIM(x, x) = 1. So n noise differences are n unit vectors whose inner
products are their similarities, and the mean S_n of all pairs is the length r_n of their sum:
r_n^2 = n + n (n - 1) S_n. A further vector makes it longer by 1 at most. Hence a caption can reach
tau with n seeds only if r_k >= r_n(tau) - (n - k) after k of them: under that score nothing is
lost, whatever the caption.
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
# a bound is never higher than one under which no memory of four models (52) was lost, whichever of
# its seeds came first (docs/error-rates.md)
MEMORIES = 0.5


def length(score: Tensor, seeds: int) -> Tensor:
    """Length of the sum of so many unit vectors whose inner products are `score` on average."""
    return (seeds + seeds * (seeds - 1) * score.double()).clamp(min=0).sqrt()


def mean_of_pairs(length: Tensor, seeds: int) -> Tensor:
    """The score of so many unit vectors whose sum has this length: the inverse of `length`."""
    return (length.square() - seeds) / (seeds * (seeds - 1))


def least_before(score: Tensor, seen: int, seeds: int) -> Tensor:
    """The smallest score after `seen` seeds that a caption can have whose score over all `seeds` is
    `score`.

    >>> least_before(torch.tensor([0.68, 0.9]), 3, 4).numpy().round(2)
    array([0.53, 0.85])
    """
    return mean_of_pairs((length(score, seeds) - (seeds - seen)).clamp(min=0), seen)


def least_after(score: Tensor, seen: int, seeds: int) -> Tensor:
    """The smallest score over all `seeds` that a caption can have whose score after `seen` is
    `score`.
    """
    return mean_of_pairs((length(score, seen) - (seeds - seen)).clamp(min=0), seeds)


def steadiness(trajectories: Tensor) -> Tensor:
    """How far from the worst case captions stay on their way, (n,), from their scores after 2, 3,
    ... seeds (n, seeds - 1).

    0: after some number of seeds the score is the smallest from which the last one can be reached;
    1: it is never under the last one. Largest share a of the way up between these two, raised to
    a power (`_power`), at which a threshold equal to the caption's own score would still find it.
    Captions of all scores, ordinary ones and memories, have about the same distribution of it
    (docs/error-rates.md), which a score after few seeds has not.
    """
    last = trajectories[:, -1]
    seeds = trajectories.shape[1] + 1
    shares = [torch.ones(len(last), dtype=torch.float64)]
    for seen in range(2, seeds):
        least = least_before(last, seen, seeds)
        room = last - least  # none at a score of 1
        way = torch.where(room < SLACK, 1.0, (trajectories[:, seen - 2] - least) / room)
        shares.append(way.clamp(0, 1) ** _power(seen, seeds))
    return torch.stack(shares).amin(0)


def _power(seen: int, seeds: int) -> float:
    """Shapes how what may be lost is shared between looks; 1.5 and 1 of four seeds, so that bounds
    after two and three seeds lose about as much. What is promised holds for any.
    """
    return (seeds - seen + 1) / 2


def early_bounds(
    trajectories: Tensor, tau: float, settings: Settings, miss: float = MISS
) -> dict[int, float]:
    """Seeds seen -> the score under which a caption is not memorized; nothing where only all seeds
    can tell (`ends_early`).

    `trajectories`: (n, seeds - 1) scores of hold-out captions after 2, 3, ... seeds. Of captions
    that reach `tau` with all seeds, and are as steady (`steadiness`) as hold-out captions, at most
    a share `miss` is lost, with 95 % confidence (an order statistic: `rates.rank`). Where the
    hold-out captions are too few for that (598 for .005), and for `miss` 0, it is the bounds under
    which no caption can reach tau. Raises InputError for a `miss` outside [0, 1).

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
    """The steadiness that all but a share `miss` of captions have; 0 where too few say so."""
    try:
        kth = rank(len(steady), miss, CONFIDENCE) if miss else 0
    except InputError:
        return 0.0
    return min(float(steady.sort(descending=True).values[kth - 1]), MEMORIES) if kth else 0.0


def ends_early(settings: Settings) -> bool:
    """Whether few seeds can tell that a caption is not memorized: where the mean of all pairs of
    SSIM counts. The largest of many pairs can be of any two seeds.
    """
    return settings.pairs == "mean" and settings.similarity == "ssim"


def promised(trajectories: Tensor, miss: float) -> float:
    """The share of memories that an early end loses at most: `miss`, or 0 where the hold-out
    captions are too few to allow any.
    """
    return miss if _share(steadiness(trajectories), miss) > 0 else 0.0


def holdout_for(miss: float) -> int:
    """How many hold-out captions it takes to promise that at most a share `miss` is lost.

    >>> holdout_for(0.005)
    598
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - miss))
