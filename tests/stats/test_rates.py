"""Promises of thresholds, p-values and lists: against scipy, by counting every
draw, and by simulation.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from findnemo.calibration import threshold
from findnemo.errors import InputError
from findnemo.stats.rates import adjusted, holdout_needed, least_listed, p_value, rank, rate_bound

FEW = st.lists(st.integers(0, 6).map(float), min_size=2, max_size=12)  # many ties


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# quantiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(20, 20), (100, 95), (1000, 991)])
@pytest.mark.parametrize("confidence", [0.025, 0.5, 0.95])
def test_a_rate_is_under_its_bound_with_just_that_confidence(n, k, confidence):
    """Beta(n + 1 - k, k) is at most x as often as n trials with chance x
    have n + 1 - k hits or more.
    """
    x = Fraction(rate_bound(n, k, confidence))
    fewer = sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(n + 1 - k))
    assert float(1 - fewer) == pytest.approx(confidence, abs=1e-9)


# ranks and their promises -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "fpr", "confidence"),
    [(1000, 0.01, 0.95), (299, 0.01, 0.95), (50, 0.1, 0.9), (5000, 0.05, 0.99)],
)
def test_a_rank_for_a_confidence_is_the_smallest_that_has_it(n, fpr, confidence):
    k = rank(n, fpr, confidence)
    assert stats.beta.cdf(fpr, n + 1 - k, k) >= confidence
    assert stats.beta.cdf(fpr, n + 2 - k, k - 1) < confidence


def test_too_few_scores_for_a_confidence_are_refused_with_the_number_it_takes():
    with pytest.raises(InputError, match=r"298 .* 0\.01 with 95% confidence: it takes 299"):
        rank(298, 0.01, 0.95)
    assert rank(299, 0.01, 0.95) == 299
    with pytest.raises(InputError, match=r"confidence 1\.5 is not a rate"):
        rank(299, 0.01, 1.5)
    with pytest.raises(InputError, match="a confidence needs a false-positive rate"):
        threshold(torch.rand(9), confidence=0.9)


SHAPES = {
    "continuous": lambda x: x.exp(),
    "ties": lambda x: (2 * x).round(),
    "all alike": lambda x: 0 * x,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n", "fpr"), [(19, 0.1), (50, 0.05), (120, 0.3), (199, 0.01)])
def test_a_new_caption_reaches_the_threshold_as_often_as_promised(n, fpr, shape):
    """On average over calibrations: at most fpr, whatever ties; without ties it is (n + 1 - k) /
    (n + 1), which is tested from both sides.
    """
    trials = 4000
    scores = SHAPES[shape](torch.randn(trials, n + 1, generator=generator(n)))
    rate = sum(float(row[-1]) >= threshold(row[:-1], fpr) for row in scores) / trials
    exact = (n + 1 - rank(n, fpr)) / (n + 1)
    low, high = stats.binom.interval(0.9999, trials, exact)
    assert exact <= fpr + 1e-12
    assert rate * trials <= high
    if shape == "continuous":
        assert rate * trials >= low
    if shape == "all alike":
        assert rate == 0


@pytest.mark.parametrize(
    ("n", "fpr", "confidence"), [(99, 0.05, None), (299, 0.01, None), (150, 0.1, 0.9)]
)
def test_the_rate_of_one_calibration_is_distributed_as_stated(n, fpr, confidence):
    """Uniform scores: the rate of a threshold tau is 1 - tau, known exactly."""
    trials = 3000
    k = rank(n, fpr, confidence)
    scores = torch.rand(trials, n, generator=generator(1), dtype=torch.float64)
    rates = torch.tensor([1 - threshold(row, fpr, confidence) for row in scores])
    assert stats.kstest(rates.numpy(), stats.beta(n + 1 - k, k).cdf).pvalue > 1e-4
    for level in (0.5, 0.95):
        low, high = stats.binom.interval(0.9999, trials, level)
        assert low <= int((rates <= rate_bound(n, k, level)).sum()) <= high
    if confidence is not None:
        assert int((rates <= fpr).sum()) >= stats.binom.interval(0.9999, trials, confidence)[0]


# p-values -----------------------------------------------------------------------------------------


def test_a_p_value_by_hand():
    holdout = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert [p_value(s, holdout) for s in (0.5, 0.4, 0.25, 0.0)] == pytest.approx(
        [1 / 5, 2 / 5, 3 / 5, 1]
    )


@given(FEW)
def test_a_p_value_is_never_small_too_often(scores):
    """Exactly: of n + 1 exchangeable scores each is the new one equally often. Ties included."""
    p = [p_value(s, torch.tensor(scores[:k] + scores[k + 1 :])) for k, s in enumerate(scores)]
    for u in p:
        assert sum(v <= u for v in p) <= u * len(scores) + 1e-9


@given(FEW, st.integers(0, 6), st.floats(0.05, 0.95))
def test_a_caption_reaches_the_threshold_where_its_p_value_is_at_most_the_rate(scores, score, fpr):
    holdout = torch.tensor(scores)
    if (len(scores) + 1) * fpr >= 1:
        assert (score >= threshold(holdout, fpr)) == (p_value(score, holdout) <= fpr + 1e-9)


def trajectories(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """(n, 9) scores that never fall, as those of 2 to 10 seeds."""
    return (torch.randn(n, 9, generator=generator(seed)) + shift).cummax(1).values


def stopped(rows: torch.Tensor, tau: float, below: float) -> torch.Tensor:
    """Scores as detection has them: of two seeds or four if they reach tau, of four if they
    are far below, else of all.
    """
    early = torch.where(rows[:, 0] >= tau, rows[:, 0], rows[:, 2])
    return torch.where((early >= tau) | (rows[:, 2] < below), early, rows[:, -1])


def test_p_values_of_scores_that_stopped_early_are_valid_whatever_stopped_them():
    trials = 3000
    n = 60
    p = []
    full = []
    for k in range(trials):
        rows = trajectories(n + 1, k)
        holdout = rows[:-1, -1]
        # both from the hold-out captions
        tau = float(holdout.quantile(0.8))
        below = float(rows[:-1, 2].quantile(0.3))
        p.append(p_value(float(stopped(rows[-1:], tau, below)), holdout))
        full.append(p_value(float(rows[-1, -1]), holdout))
    assert all(a >= b for a, b in zip(p, full, strict=True))
    for u in (1 / 61, 0.05, 0.1, 0.5):
        assert sum(v <= u for v in p) <= stats.binom.ppf(0.9999, trials, u)
        assert sum(v <= u + 1e-9 for v in full) >= stats.binom.ppf(
            0.0001, trials, int(61 * u + 1e-9) / 61
        )


# lists --------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20).map(lambda x: x / 20), min_size=1, max_size=30))
def test_adjusted_p_values_are_benjamini_and_hochbergs(p):
    """Of the j-th smallest of m p-values the smallest m p / rank from there on."""
    ranked = sorted(p)
    steps = [len(p) * value / (k + 1) for k, value in enumerate(ranked)]
    assert adjusted(p) == pytest.approx([min(1.0, *steps[ranked.index(value) :]) for value in p])


def test_no_p_values_make_no_list():
    assert adjusted([]) == []


@given(st.integers(1, 60), st.sampled_from([0.05, 0.1, 0.25]), st.integers(1, 5))
@settings(max_examples=60)
def test_so_many_hold_out_captions_are_needed(tests, level, together):
    """Against the list itself:

    `together` captions above all hold-out scores, the others below them all.
    """
    together = min(together, tests)

    def listed(n: int) -> bool:
        return adjusted([1 / (n + 1)] * together + [1.0] * (tests - together))[0] <= level + 1e-12

    needed = holdout_needed(tests, level, together)
    assert listed(needed)
    assert needed == 0 or not listed(needed - 1)
    assert least_listed(tests, level, needed) <= together
    assert needed < 2 or least_listed(tests, level, needed - 1) > together


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["all seeds", "stopped early", "ties"])
def test_the_share_of_false_discoveries_is_controlled(kind):
    """One table of hold-out scores serves all captions, as in a run; 180
    ordinary ones and 20 memorized.
    """
    level = 0.2
    repeats = 250
    ordinary = 180
    memorized = 20
    n = 400
    shares = []
    found = 0
    for k in range(repeats):
        holdout = trajectories(n, 3 * k)
        rows = torch.cat(
            [trajectories(ordinary, 3 * k + 1), trajectories(memorized, 3 * k + 2, 1.5)]
        )
        scores = rows[:, -1]
        holdout = holdout[:, -1]
        if kind == "stopped early":
            scores = stopped(rows, float(holdout.quantile(0.95)), float(rows[:, 2].quantile(0.2)))
        if kind == "ties":
            scores = (4 * scores).round()
            holdout = (4 * holdout).round()
        q = torch.tensor(adjusted([p_value(float(s), holdout) for s in scores])) <= level
        shares.append(float(q[:ordinary].sum() / max(int(q.sum()), 1)))
        found += int(q[ordinary:].sum())
    mean = float(torch.tensor(shares).mean())
    error = float(torch.tensor(shares).std()) / repeats**0.5
    promised = level * ordinary / (ordinary + memorized)
    assert mean <= promised + 4 * error
    assert found > 0
    if kind == "all seeds":  # and no more careful than it has to be
        assert mean >= promised - 4 * error - ordinary / (n * 20)


def test_q_values_keep_the_order_of_p_values():
    p = [0.5, 0.001, 0.02, 0.02, 0.9]
    q = adjusted(p)
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert all(q[a] <= q[b] for a, b in pairwise(order))
    assert q[2] == q[3]
