"""How good a detector is: a threshold from hold-out scores, then AUROC, accuracy and TPR at 1 %
FPR, with intervals.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from findnemo.calibration import threshold
from findnemo.errors import InputError
from findnemo.stats.intervals import bootstrap
from findnemo.stats.roc import accuracy_of, auroc, tpr_at_fpr

FPR = 0.01
Interval = tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """The quality of a detector.

    `threshold`: from the hold-out scores. `accuracy`: share of all captions on the right side:
    positives at or over the threshold, negatives under it. `tpr`: share of positives over the level
    that 1 % of the negatives exceed. The `..._interval` fields hold 95 % bootstrap intervals.
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
    """Evaluate a detector by its scores of memorized captions (n,), of others (m,), and of hold-out
    captions (k,).

    Only the hold-out captions set the threshold: mean + 1 std, or conformal for a rate `fpr`
    (`calibration.threshold`). The bootstrap resamples all three, so that the interval of the
    accuracy includes the uncertainty of the threshold. Raises InputError for an empty sample or too
    few hold-out scores. Source: Finding NeMo, section 4 and appendix (detection).

    >>> import torch
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
        return accuracy_of(positive >= cut, negative >= cut)

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
