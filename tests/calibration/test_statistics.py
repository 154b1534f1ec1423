"""Statistics against naive ones, and thresholds against hand computation and their guarantee."""

from functools import reduce
from itertools import pairwise
from operator import add

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from findnemo import activations
from findnemo.calibration import Moments, tau_interval, threshold
from findnemo.errors import InputError


@given(
    st.integers(2, 30),
    st.lists(st.integers(0, 30)),
    st.sampled_from([0.0, 1e6]),
    st.integers(0, 2**31),
)
def test_moments_of_any_split_merge_to_the_mean_and_unbiased_deviation(n, cuts, offset, seed):
    values = (
        torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        + offset
    )
    edges = sorted({0, n, *(c for c in cuts if c < n)})
    parts = [values[i:j] for i, j in pairwise(edges)]
    total = reduce(add, [Moments.of(part) for part in parts])
    assert total.count == n
    torch.testing.assert_close(total.mean, values.mean(0))
    torch.testing.assert_close(total.std, values.std(0), atol=1e-8, rtol=1e-8)


def test_one_value_has_no_deviation():
    assert Moments.of(torch.ones(1, 3)).std.isnan().all()


def test_activations_are_those_of_a_real_unet_pass(tiny):
    expected = {}
    handles = [
        layer.register_forward_hook(
            lambda _, args, output, name=name: expected.update({name: output[0].abs().mean(0)})
        )
        for name, layer in tiny.value_layers.items()
    ]
    with torch.no_grad():
        tiny.predict_noise(tiny.noise("a cat", [0]), 981, tiny.encode(["a cat"]))
    for handle in handles:
        handle.remove()

    def refuse(*_: object) -> None:
        raise AssertionError("the U-Net ran")

    tiny.denoiser.register_forward_pre_hook(refuse)
    values = activations(tiny, "a cat")
    assert list(values) == list(tiny.value_layers)
    for name, value in values.items():
        assert value.shape == (tiny.widths()[name],)
        torch.testing.assert_close(value, expected[name])


def test_the_papers_threshold_is_mean_plus_one_unbiased_deviation():
    assert threshold(torch.tensor([0.1, 0.2, 0.6])) == pytest.approx(0.3 + (0.14 / 2) ** 0.5)


@pytest.mark.parametrize(
    ("n", "fpr", "rank"),
    [(19, 0.1, 18), (9, 0.1, 9), (10, 0.25, 9), (3, 0.3, 3), (99, 0.01, 99), (999, 0.05, 950)],
)
def test_the_conformal_threshold_is_next_above_an_order_statistic(n, fpr, rank):
    """Of 1 .. n the ceil((n + 1)(1 - fpr))-th smallest stays under it, and nothing that
    float32 holds lies between.
    """
    scores = torch.randperm(n, generator=torch.Generator().manual_seed(n)) + 1.0
    assert (
        threshold(scores, fpr)
        == torch.nextafter(torch.tensor(float(rank)), torch.tensor(float(n + 1))).item()
        > rank
    )


@pytest.mark.parametrize(("n", "fpr"), [(19, 0.1), (50, 0.05)])
def test_a_new_prompt_exceeds_the_conformal_threshold_at_most_that_often(n, fpr):
    trials = 4000
    scores = torch.randn(
        trials, n + 1, generator=torch.Generator().manual_seed(0)
    ).exp()  # any distribution
    rate = sum(float(row[-1]) > threshold(row[:-1], fpr) for row in scores) / trials
    noise = 3 * (fpr * (1 - fpr) / trials) ** 0.5
    assert fpr - 1 / (n + 1) - noise <= rate <= fpr + noise


def test_a_rate_that_the_prompts_cannot_support_is_refused_with_the_number_it_takes():
    with pytest.raises(InputError, match=r"8 hold-out prompts are too few .* 0\.1: it takes 9"):
        threshold(torch.rand(8), 0.1)
    threshold(torch.rand(9), 0.1)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 5.0])
def test_a_rate_outside_zero_to_one_is_refused(fpr):
    with pytest.raises(InputError, match="is not a rate between 0 and 1"):
        threshold(torch.rand(9), fpr)


@pytest.mark.parametrize(
    "draw", [torch.randn, lambda *size, generator: torch.rand(*size, generator=generator) ** 3]
)
def test_the_interval_of_tau_holds_the_truth_as_often_as_it_says(draw):
    generator = torch.Generator().manual_seed(5)
    truth = threshold(draw(2_000_000, generator=generator))
    inside = 0
    for _ in range(400):
        low, high = tau_interval(draw(300, generator=generator))
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.98
