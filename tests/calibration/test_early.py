"""Early ends: what no caption can do is never lost, and of what could be, no more than promised."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from findnemo.calibration import early_bounds, least_after, least_before, steadiness
from findnemo.errors import InputError
from findnemo.scores import pairwise, trajectory
from findnemo.settings import PAPER, RELEASED, settings_for

FINDNEMO = settings_for("findnemo")
SEEDS = 4


def scores_of(vectors: Tensor) -> Tensor:
    """Mean inner product of all pairs of the first 2, 3, ... unit vectors: (n, seeds, d) -> (n,
    seeds - 1). Pair by pair, without the length of any sum.
    """
    counts = range(2, vectors.shape[1] + 1)
    return torch.stack(
        [
            torch.stack(
                [(vectors[:, i] * vectors[:, j]).sum(1) for i in range(k) for j in range(i)]
            ).mean(0)
            for k in counts
        ],
        1,
    )


def drawn(captions: int, seed: int, low: float = 0.3, high: float = 2.0) -> Tensor:
    """Unit vectors around a direction of each caption, as unlike each other as chance says."""
    generator = torch.Generator().manual_seed(seed)
    spread = low + (high - low) * torch.rand(captions, 1, 1, generator=generator)
    noise = torch.randn(captions, SEEDS, 12, generator=generator, dtype=torch.float64)
    centre = torch.zeros(12, dtype=torch.float64)
    centre[0] = 3.0
    vectors = centre + spread * noise
    return vectors / vectors.norm(dim=2, keepdim=True)


def maps(kind: str, seed: int) -> Tensor:
    """Four noise differences in [0, 1] that do their worst: two unlike, and what lies between."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 3, 16, 16, generator=generator)
    ramp = torch.linspace(0, 1, 16).expand(3, 16, 16)
    sets = {
        "noise": [x, y, x.flip(1), y.flip(2)],
        "between": [x, y, (x + y) / 2, (x + y) / 2],
        "opposite": [x, 1 - x, x, x],
        "ramps": [ramp, ramp.flip(2), ramp, ramp * 0.999 + 0.001 * x],
        "flat": [ramp * 1e-3, 1 - ramp * 1e-3, x * 1e-4, ramp],
    }
    return torch.stack(sets[kind])


@pytest.mark.parametrize("kind", ["noise", "between", "opposite", "ramps", "flat"])
def test_no_noise_differences_of_any_kind_pass_the_bounds_that_hold_for_all(kind):
    for seed, order in itertools.product(range(3), itertools.permutations(range(SEEDS))):
        two, three, all_ = trajectory(maps(kind, seed)[list(order)], "ssim", "mean").double()
        for score, seen in ((two, 2), (three, 3)):
            assert score >= least_before(all_, seen, SEEDS) - 1e-5
            assert all_ >= least_after(score, seen, SEEDS) - 1e-5


def test_ssim_is_a_kernel():
    for kind, seed in itertools.product(
        ("noise", "between", "opposite", "ramps", "flat"), range(3)
    ):
        table = pairwise(maps(kind, seed)).fill_diagonal_(1.0).double()
        assert torch.linalg.eigvalsh(table).min() > -1e-5


def test_the_bounds_that_hold_for_all_are_reached():
    across = torch.eye(2, dtype=torch.float64)
    both = across.sum(0) / across.sum(0).norm()
    worst = scores_of(torch.stack([*across, both, both])[None])
    assert worst[0, 0] == 0
    assert float(least_before(worst[0, 2], 2, SEEDS)) == pytest.approx(0, abs=1e-9)
    assert float(least_after(worst[0, 0], 2, 3)) < float(worst[0, 1])
    assert float(steadiness(worst)) == pytest.approx(0, abs=1e-6)
    same = scores_of(both.expand(1, SEEDS, 2))
    assert float(steadiness(same)) == 1


def test_nothing_is_lost_where_nothing_may_be():
    trajectories = scores_of(drawn(20_000, 1))
    for tau in (-0.2, 0.3, 0.7, 0.95):
        bounds = early_bounds(trajectories, tau, FINDNEMO, miss=0.0)
        found = trajectories[:, 2] >= tau
        assert found.any()
        for seen, bound in bounds.items():
            assert (trajectories[found, seen - 2] >= bound).all()


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.85])
def test_no_more_is_lost_than_promised_also_of_other_captions_than_calibrated_on(tau):
    """Calibrations of 600, and captions that are steadier or wilder throughout than those."""
    lost = dict.fromkeys(("alike", "clearer", "wilder"), 0)
    found = dict(lost)
    cost = []
    tested = {
        "alike": scores_of(drawn(20_000, 2)),
        "clearer": scores_of(drawn(20_000, 3, 0.2, 0.8)),
        "wilder": scores_of(drawn(20_000, 4, 0.8, 2.0)),
    }
    for seed in range(10):
        bounds = early_bounds(scores_of(drawn(600, 100 + seed)), tau, FINDNEMO, miss=0.005)
        for name, trajectories in tested.items():
            early = (trajectories[:, 0] < bounds[2]) | (trajectories[:, 1] < bounds[3])
            over = trajectories[:, 2] >= tau
            lost[name] += int((over & early).sum())
            found[name] += int(over.sum())
        first, second, _ = tested["alike"][tested["alike"][:, 2] < tau].T
        cost.append(
            2 + (first >= bounds[2]).double() + ((first >= bounds[2]) & (second >= bounds[3]))
        )
    for name, count in found.items():
        assert lost[name] <= 0.005 * count
    assert torch.cat(cost).mean() < 3.5  # it does end early


def test_few_hold_out_captions_promise_nothing_but_what_is_sure():
    steady = torch.full((597, 3), 0.5)
    sure = early_bounds(steady, 0.7, FINDNEMO, miss=0.0)
    assert early_bounds(steady, 0.7, FINDNEMO) == sure
    assert early_bounds(torch.empty(0, 3), 0.7, FINDNEMO) == sure
    more = early_bounds(torch.full((598, 3), 0.5), 0.7, FINDNEMO)
    assert all(more[seen] > sure[seen] for seen in (2, 3))
    assert all(bound < 0.7 for bound in more.values())


def test_where_any_pair_can_decide_nothing_ends_early():
    assert early_bounds(torch.full((900, 9), 0.5), 0.7, PAPER) == {}
    assert early_bounds(torch.full((900, 9), 0.5), 0.7, RELEASED) == {}


@pytest.mark.parametrize("miss", [-0.1, 1.0, 7.0, float("nan")])
def test_a_share_that_is_none_is_refused(miss):
    with pytest.raises(InputError, match="--miss"):
        early_bounds(torch.full((9, 3), 0.5), 0.7, FINDNEMO, miss)
