"""How good a detector is: threshold from hold-out scores, then AUROC, accuracy and TPR at 1 %
FPR, each with an interval.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from findnemo.calibration import threshold
from findnemo.errors import InputError
from findnemo.stats.intervals import bootstrap
from findnemo.stats.roc import auroc, tpr_at_fpr

FPR = 0.01
Interval = tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """`threshold`: of the hold-out scores.

    `accuracy`: share of positives at or over it and of negatives under it, of all of them. `tpr`:
    share of positives over the threshold that 1 % of the negatives exceed. The `..._interval` hold
    the 95 % bootstrap intervals.
    """

    threshold: float
    threshold_interval: Interval
    auroc: float
    auroc_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    tpr: float
    tpr_interval: Interval
    positives: int
    negatives: int
    holdout: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    positive: Tensor, negative: Tensor, holdout: Tensor, fpr: float | None = None
) -> Evaluation:
    """Judge a detector by its scores of memorized captions (n,), of others (m,), and of hold-out
    captions (k,), which set the threshold alone.

    The threshold is mean + 1 std, or conformal for a rate `fpr` (`calibration.threshold`). In the
    bootstrap all three samples are drawn anew, so that accuracy carries what is not known about the
    threshold. Raises InputError for an empty sample or too few hold-out scores. Source: Finding
    NeMo, section 4 and appendix (detection).

    >>> found = evaluate(torch.tensor([0.8, 0.9, 0.3]), torch.tensor([0.2, 0.4]), torch.tensor([0.2, 0.3, 0.4]))
    >>> round(found.threshold, 2), round(found.auroc, 2), found.accuracy, round(found.tpr, 2)
    (0.4, 0.83, 0.6, 0.67)
    """
    for name, sample in (("memorized", positive), ("other", negative)):
        if not len(sample):
            raise InputError(
                f"no scores of {name} captions: a detector is judged by captions of both kinds"
            )
    tau = threshold(holdout, fpr)

    def accuracy(positive: Tensor, negative: Tensor, holdout: Tensor) -> float:
        cut = threshold(holdout, fpr)
        return float(torch.cat([positive >= cut, negative < cut]).double().mean())

    def tpr(positive: Tensor, negative: Tensor) -> float:
        return tpr_at_fpr(positive, negative, FPR)

    return Evaluation(
        tau,
        bootstrap(lambda h: threshold(h, fpr), holdout),
        auroc(positive, negative),
        bootstrap(auroc, positive, negative),
        accuracy(positive, negative, holdout),
        bootstrap(accuracy, positive, negative, holdout),
        tpr(positive, negative),
        bootstrap(tpr, positive, negative),
        len(positive),
        len(negative),
        len(holdout),
    )
