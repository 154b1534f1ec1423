"""Ranking metrics of a detector: AUROC and the true-positive rate at a false-positive rate."""

from __future__ import annotations

from torch import Tensor


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive score exceeds a negative one, ties counted half (Mann-Whitney U).

    It takes two lines of torch on the device of the scores; scipy's `mannwhitneyu` would compute a
    test too.

    >>> import torch
    >>> auroc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))
    0.875
    """
    gap = positive.double()[:, None] - negative.double()[None, :]
    return float((gap > 0).double().mean() + 0.5 * (gap == 0).double().mean())


def accuracy_of(positive: Tensor, negative: Tensor) -> float:
    """Share of right verdicts, (n,) and (m,) booleans: True for positives, False for negatives.

    >>> import torch
    >>> accuracy_of(torch.tensor([True, False]), torch.tensor([False, False]))
    0.75
    """
    return float(int(positive.sum()) + int((~negative).sum())) / (len(positive) + len(negative))


def tpr_at_fpr(positive: Tensor, negative: Tensor, fpr: float = 0.01) -> float:
    """Share of positives above the smallest threshold that at most a share `fpr` of negatives
    exceeds.
    """
    allowed = int(fpr * len(negative))
    cut = negative.double().sort(descending=True).values[allowed]
    return float((positive.double() > cut).double().mean())
