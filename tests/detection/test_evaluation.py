"""Figures of a detector by hand, and bootstrap intervals that hold what they promise."""

from __future__ import annotations

import math

import pytest
import torch

from findnemo.detection import evaluate
from findnemo.errors import InputError
from findnemo.stats.intervals import bootstrap


def normal(n: int, mean: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def test_the_figures_by_hand():
    holdout = torch.tensor([1.0, 2.0, 3.0])  # mean 2, std 1: threshold 3
    found = evaluate(torch.tensor([3.0, 5.0, 2.5]), torch.tensor([1.0, 3.5, 2.0, 0.0]), holdout)
    assert found.threshold == 3
    assert found.accuracy == pytest.approx(
        5 / 7
    )  # 2.5 is missed, 3.5 is a false alarm; 3 is at the threshold
    assert found.auroc == pytest.approx(10 / 12)
    assert found.tpr == pytest.approx(1 / 3)
    assert (found.positives, found.negatives, found.holdout) == (3, 4, 3)
    assert found.to_json()["threshold"] == 3


def test_the_threshold_comes_from_the_holdout_alone_and_may_be_conformal():
    positive = normal(30, 3)
    negative = normal(30)
    holdout = normal(99, seed=2)
    assert evaluate(positive, negative, holdout).threshold == pytest.approx(
        float(holdout.mean() + holdout.std())
    )
    least = holdout.sort().values[94].item()
    assert evaluate(positive, negative, holdout, fpr=0.05).threshold == math.nextafter(
        least, math.inf
    )  # the next number above


def test_every_figure_lies_in_its_interval_and_the_interval_narrows():
    few, many = (evaluate(normal(n, 0.8, 1), normal(n, 0, 2), normal(n, 0, 3)) for n in (25, 250))
    for found in (few, many):
        for name in ("threshold", "auroc", "accuracy", "tpr"):
            low, high = getattr(found, f"{name}_interval")
            assert low <= getattr(found, name) <= high
    assert many.auroc_interval[1] - many.auroc_interval[0] < 0.5 * (
        few.auroc_interval[1] - few.auroc_interval[0]
    )


def test_a_kind_without_scores_is_refused():
    some = torch.tensor([1.0, 2.0])
    none = torch.empty(0)
    with pytest.raises(InputError, match="no scores of memorized captions"):
        evaluate(none, some, some)
    with pytest.raises(InputError, match="no scores of other captions"):
        evaluate(some, none, some)
    with pytest.raises(InputError, match="at least two hold-out prompts"):
        evaluate(some, some, some[:1])


def test_the_interval_of_a_mean_is_the_normal_one():
    sample = normal(400)
    low, high = bootstrap(lambda x: float(x.mean()), sample, repeats=4000)
    half = 1.96 * float(sample.std()) / math.sqrt(400)
    assert (low, high) == (
        pytest.approx(float(sample.mean()) - half, abs=0.01),
        pytest.approx(float(sample.mean()) + half, abs=0.01),
    )


def test_the_interval_covers_as_often_as_it_says():
    covered = 0
    for seed in range(150):
        low, high = bootstrap(
            lambda x: float(x.mean()), normal(40, 5, seed), repeats=200, level=0.8
        )
        covered += low <= 5 <= high
    assert 0.7 <= covered / 150 <= 0.88


def test_samples_are_drawn_independently_and_reproducibly():
    x = normal(50)
    apart = bootstrap(lambda a, b: float((a - b).mean()), x, x)
    assert apart[0] < 0 < apart[1]  # drawn together their difference would be zero always
    assert apart == bootstrap(lambda a, b: float((a - b).mean()), x, x)
    assert apart != bootstrap(lambda a, b: float((a - b).mean()), x, x, seed=1)


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        ((), {}),
        ((torch.empty(0),), {}),
        ((torch.ones(2),), {"repeats": 0}),
        ((torch.ones(2),), {"level": 1}),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(samples, options):
    with pytest.raises(InputError, match="a bootstrap"):
        bootstrap(lambda *x: 0.0, *samples, **options)
