"""Similarities against torchmetrics, an independent implementation, and
small cases computed by hand.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as torchmetrics_ms_ssim,
)
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from findnemo.errors import InputError, NumericalError
from findnemo.scores import (
    SIMILARITIES,
    by_seed,
    memorization_score,
    minmax,
    ms_ssim,
    pairwise,
    ssim,
    trajectory,
)


def similar_maps(*shape: int) -> tuple[Tensor, Tensor]:
    """Two maps in [0, 1], from unrelated (first sample) to nearly the same (last)."""
    generator = torch.Generator().manual_seed(sum(shape))
    x, y = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
    share = torch.linspace(0, 0.95, shape[0]).view(-1, 1, 1, 1)
    return x, share * x + (1 - share) * y


def reference_ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of one pair by torchmetrics, over the places where the window fits.

    The released code uses torchmetrics 1.3.2, which leaves out the border; later versions pad and
    count it.
    """
    _, places = torchmetrics_ssim(
        x[None], y[None], data_range=1.0, sigma=1.5, kernel_size=11, return_full_image=True
    )
    return places[..., 5:-5, 5:-5].mean()


def reference_ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of a batch by torchmetrics, given no range, with the SSIM of its last scale, a
    factor, taken without the border.
    """
    whole = torchmetrics_ms_ssim(x, y, reduction="none", kernel_size=11, betas=(0.33, 0.33, 0.33))
    x, y = (avg_pool2d(avg_pool2d(maps, 2), 2) for maps in (x, y))
    with_border, places = torchmetrics_ssim(x, y, reduction="none", return_full_image=True)
    return whole * (places[..., 5:-5, 5:-5].mean((1, 2, 3)) / with_border).relu() ** 0.33


@pytest.mark.parametrize(
    "shape", [(4, 4, 16, 16), (3, 1, 11, 11), (2, 3, 64, 64), (3, 4, 12, 31), (1, 16, 33, 20)]
)
def test_ssim_is_that_of_torchmetrics(shape):
    x, y = similar_maps(*shape)
    expected = torch.stack([reference_ssim(a, b) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(ssim(x, y), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("top", [1.0, 0.2])
@pytest.mark.parametrize("shape", [(4, 4, 64, 64), (2, 1, 44, 44), (2, 3, 47, 70), (45, 1, 44, 44)])
def test_ms_ssim_is_that_of_torchmetrics_which_measures_the_range_anew_at_each_scale(shape, top):
    x, y = similar_maps(*shape)
    x, y = x * top, (0.3 * x + 0.7 * y) * top  # no scale is negative, where the score is zero
    expected = reference_ms_ssim(x, y)
    assert expected.min() > 0.1
    torch.testing.assert_close(ms_ssim(x, y), expected, atol=5e-5, rtol=1e-4)


def waves(n: int, c: int, side: int) -> Tensor:
    """Maps by a formula, scaled to [0, 1] in each channel."""
    at = torch.arange(n * c * side * side, dtype=torch.float64).view(n, c, side, side)
    maps = (at * 0.37).sin() * (at * 0.011).cos() + (at / (side * side)).sin()
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return ((maps - low) / (high - low)).float()


# by torchmetrics 1.3.2, which the released code names: a batch of three pairs, and each pair by
# itself
PRINTED = {
    (4, 64): ([0.51631, 0.52732, 0.53461], [0.51537, 0.52595, 0.53370]),
    (1, 44): ([0.43028, 0.49650, 0.58189], [0.42970, 0.48368, 0.58123]),
}


@pytest.mark.parametrize(("size", "expected"), PRINTED.items())
def test_ms_ssim_is_what_torchmetrics_1_3_2_prints(size, expected):
    x = waves(3, *size)
    y = 0.8 * (0.6 * x + 0.4 * waves(4, *size)[1:])
    together, alone = expected
    assert ms_ssim(x, y).tolist() == pytest.approx(together, abs=2e-5)
    assert ms_ssim(x, y, together=1).tolist() == pytest.approx(alone, abs=2e-5)


def test_ms_ssim_measures_the_range_over_groups_of_samples():
    x, y = similar_maps(6, 2, 44, 44)
    x = x * torch.tensor([1, 0.5, 0.25, 1, 1, 0.1]).view(-1, 1, 1, 1)  # groups of unlike ranges
    for size in (1, 2, 3, 6):
        parts = [ms_ssim(a, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
        torch.testing.assert_close(ms_ssim(x, y, size), torch.cat(parts), atol=1e-6, rtol=0)


def test_flat_maps_are_like_each_other():
    flat = torch.zeros(2, 1, 44, 44)
    assert ms_ssim(flat, flat).tolist() == ssim(flat, flat).tolist() == [1.0, 1.0]


def test_ms_ssim_is_zero_where_a_scale_is_anticorrelated():
    x, _ = similar_maps(1, 1, 44, 44)
    assert ms_ssim(x, 1 - x).tolist() == [0.0]


@pytest.mark.parametrize("similarity", [ssim, lambda x, y: ms_ssim(x, y, together=1)])
def test_a_sample_scores_the_same_in_any_batch(similarity):
    x, y = similar_maps(3, 4, 44, 44)
    alone = torch.cat([similarity(x[k : k + 1], y[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(similarity(x, y), alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_half_precision_maps_are_compared_in_float32(similarity, dtype):
    x, y = (maps.to(dtype) for maps in similar_maps(2, 4, 44, 44))
    result = similarity(x, y)
    assert result.dtype == torch.float32
    assert torch.equal(result, similarity(x.float(), y.float()))


def test_ms_ssim_on_small_latents_names_the_sizes_and_the_way_out():
    with pytest.raises(
        InputError, match=r"at least 44 x 44, these are 16 x 16; use plain SSIM .*'paper'"
    ):
        ms_ssim(*similar_maps(2, 4, 16, 16))


@pytest.mark.parametrize("side", range(35, 48))
def test_ms_ssim_either_works_or_says_that_maps_are_too_small(side):
    x, y = similar_maps(1, 1, side, 64)
    if side >= 44:
        assert ms_ssim(x, y).isfinite().all()
    else:
        with pytest.raises(InputError, match=f"{side} x 64"):
            ms_ssim(x, y)


def test_ssim_on_maps_smaller_than_its_window_is_refused():
    with pytest.raises(InputError, match="SSIM needs maps of at least 11 x 11, these are 8 x 16"):
        ssim(*similar_maps(1, 4, 8, 16))


def test_minmax_by_hand():
    delta = torch.tensor([[[[0.0, 2.0]], [[4.0, 8.0]]], [[[-1.0, 0.0]], [[1.0, 0.0]]]])
    assert minmax(delta).tolist() == [[[[0.0, 0.25]], [[0.5, 1.0]]], [[[0.0, 0.5]], [[1.0, 0.5]]]]
    assert minmax(delta, per_channel=True).tolist() == [
        [[[0.0, 1.0]], [[0.0, 1.0]]],
        [[[0.0, 1.0]], [[1.0, 0.0]]],
    ]


@pytest.mark.parametrize("per_channel", [False, True])
def test_minmax_of_a_constant_map_is_zero(per_channel):
    assert torch.equal(minmax(torch.full((2, 3, 4, 4), 7.0), per_channel), torch.zeros(2, 3, 4, 4))


def test_minmax_of_half_precision_is_float32():
    assert minmax(torch.tensor([[[[60000.0, -60000.0, 0.0]]]], dtype=torch.float16)).tolist() == [
        [[[1.0, 0.0, 0.5]]]
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("per_channel", [False, True])
def test_minmax_refuses_nan_and_infinity(value, per_channel):
    delta = torch.rand(2, 4, 16, 16)
    delta[1, 2, 3, 4] = value
    with pytest.raises(NumericalError, match=r"NaN or infinity.*float32"):
        minmax(delta, per_channel)


@pytest.mark.parametrize("similarity", list(SIMILARITIES))
def test_pairwise_holds_every_pair_and_is_symmetric(similarity):
    deltas = similar_maps(4, 2, 52, 52)[1]
    deltas = (deltas + deltas[:1]) / 2  # no scale is negative
    table = pairwise(deltas, similarity)
    assert torch.equal(table, table.T)
    assert table.diagonal().tolist() == [-math.inf] * 4
    first, second = torch.combinations(torch.arange(4), r=2).T
    values = {
        "ssim": lambda x, y: torch.stack([*map(reference_ssim, x, y)]),
        "ms-ssim": reference_ms_ssim,
    }
    expected = values[similarity](
        deltas[first], deltas[second]
    )  # all pairs in one batch, as the released code gives them
    torch.testing.assert_close(table[first, second], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("similarity", list(SIMILARITIES))
def test_a_trajectory_holds_the_score_of_the_first_seeds_by_themselves(similarity):
    deltas = minmax(
        torch.randn(5, 2, 44, 44, generator=torch.Generator().manual_seed(1)).cumsum(0),
        per_channel=True,
    )
    expected = [memorization_score(deltas[:n], similarity) for n in range(2, 6)]
    assert trajectory(deltas, similarity).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_memorization_score_is_the_largest_pair():
    x, y = similar_maps(3, 4, 16, 16)
    deltas = torch.cat([x, y[2:]])  # the last two are nearly the same
    assert memorization_score(deltas) == pytest.approx(float(reference_ssim(x[2], y[2])), abs=1e-5)
    assert memorization_score(deltas) == pytest.approx(float(pairwise(deltas).max()))


def test_the_score_by_the_mean_of_pairs_is_that_of_a_plain_loop():
    x, y = similar_maps(3, 4, 16, 16)
    deltas = torch.cat([x, y[2:]])
    table = [[float(reference_ssim(one, other)) for other in deltas] for one in deltas]
    pairs = [table[i][j] for i in range(4) for j in range(i)]
    assert memorization_score(deltas, pairs="mean") == pytest.approx(sum(pairs) / 6, abs=1e-5)
    each = [(sum(row) - row[i]) / 3 for i, row in enumerate(table)]
    assert by_seed(pairwise(deltas), "mean").tolist() == pytest.approx(each, abs=1e-5)
    assert trajectory(deltas, pairs="mean")[0] == pytest.approx(table[0][1], abs=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_a_score_of_fewer_than_two_samples_is_refused(n):
    with pytest.raises(InputError, match=f"at least two, not {n}"):
        memorization_score(torch.rand(n, 4, 16, 16))
