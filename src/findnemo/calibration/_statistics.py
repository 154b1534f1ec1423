"""Activations of neurons and their moments; the threshold of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from findnemo.errors import InputError
from findnemo.models import Model, Text
from findnemo.stats.rates import rank


def activations(model: Model, prompt: str, text: Text | None = None) -> dict[str, Tensor]:
    """a_i^l(y): mean over all token positions of |activation|, one (width,) float tensor for each
    value layer.

    `text`: the encoded prompt, one row, if known. If value projections see only the prompt
    embedding, this takes the text encoder and one matrix product a layer, without a U-Net pass.
    Source: Finding NeMo, section 3.3.
    """
    encoded = model.encode([prompt]) if text is None else text
    return {name: rows[0] for name, rows in layer_activations(model, [prompt], encoded).items()}


def layer_activations(model: Model, prompts: Sequence[str], text: Text) -> dict[str, Tensor]:
    """`activations` of N prompts encoded as `text`: layer -> (N, width)."""
    return {name: rows.cpu() for name, rows in model.value_activations(prompts, text).items()}


@dataclass(frozen=True)
class Moments:
    """Running mean and squared deviation of vectors, in float64; parts merge exactly as in Chan et
    al. (1979).
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """The moments of vectors (n, width)."""
        mean = values.double().mean(0)
        return cls(len(values), mean, (values.double() - mean).square().sum(0))

    def __add__(self, other: Moments) -> Moments:
        n = self.count + other.count
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / n)
        return Moments(
            n, mean, self.squares + other.squares + gap**2 * (self.count * other.count / n)
        )

    @property
    def std(self) -> Tensor:
        """Unbiased standard deviation (NaN for one sample)."""
        if self.count < 2:
            return torch.full_like(self.mean, math.nan)
        return (self.squares / (self.count - 1)).sqrt()


def threshold(scores: Tensor, fpr: float | None = None, confidence: float | None = None) -> float:
    """tau from hold-out scores (n,): mean + 1 std (Finding NeMo, section 4), or for a
    false-positive rate the conformal threshold.

    The conformal threshold is the number next above the k-th smallest score, k = ceil((n + 1)(1 -
    fpr)). An ordinary caption, exchangeable with the hold-out captions, reaches it with probability
    at most `fpr`. This holds over the draw of both, for any n and any distribution, ties included.
    For one calibration the rate is distributed as Beta(n + 1 - k, k) (`rates.rate_bound`). With a
    `confidence`, tau is high enough for that rate to be at most `fpr` with this confidence. Raises
    InputError if there are too few scores for the rate.

    >>> round(threshold(torch.tensor([0.2, 0.3, 0.4])), 3)
    0.4
    >>> round(threshold(torch.tensor([0.2, 0.3, 0.4]), fpr=0.5), 3)
    0.3
    """
    n = len(scores)
    if fpr is None:
        if confidence is not None:
            raise InputError("a confidence needs a false-positive rate: give fpr too")
        if n < 2:
            raise InputError(
                f"a threshold of mean + 1 std needs at least two hold-out prompts, not {n}"
            )
        return float(scores.double().mean() + scores.double().std())
    kth = scores.sort().values[rank(n, fpr, confidence) - 1]
    # a score equal to tau means memorized, so tau lies above the tie
    return float(torch.nextafter(kth, torch.full_like(kth, math.inf)))


def tau_interval(scores: Tensor) -> tuple[float, float]:
    """95 % confidence interval of tau = mean + 1 std over hold-out scores (n,), by the delta
    method.

    A score x moves tau by (x - mean) + ((x - mean)^2 - var) / (2 std), divided by n, for any
    distribution.

    >>> low, high = tau_interval(torch.linspace(0.2, 0.6, 400))
    >>> round(low, 2), round(high, 2)
    (0.5, 0.53)
    """
    x = scores.double()
    tau = threshold(scores)
    std = x.std()
    if std == 0:
        return tau, tau
    gap = x - x.mean()
    half = 1.96 * float((gap + (gap**2 - std**2) / (2 * std)).std()) / math.sqrt(len(x))
    return tau - half, tau + half
