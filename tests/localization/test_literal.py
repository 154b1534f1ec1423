"""Scores and sets equal a literal, naive transcription of NeMo's listings (Hintersdorf,
Struppek et al., NeurIPS 2024).

The transcription uses the U-Net, forward hooks and torchmetrics, one seed at a time. Of findnemo it
takes the initial latents and the prompt embeddings, nothing else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations

import pytest
import torch
from _tiny import tiny_pipeline
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

import findnemo
from findnemo import Calibration, Model, Settings
from findnemo.settings import VARIANTS

Neuron = tuple[str, int]
Statistics = dict[str, Tensor]

SEEDS = range(10)
TIMESTEP = {
    "paper": 981,
    "released": 961,
}  # of a 50-step DDIM schedule: the first; the second, with an un-stepped x_T
TRIALS = {"paper": 18, "released": 16}

# the U-Net, and what is read from it or blocked in it ---------------------------------------------


def value_layers(model: Model) -> dict[str, nn.Module]:
    """`attn2.to_v` of the down blocks, then of the mid block."""
    modules = dict(model.pipeline.unet.named_modules())
    parts = ("down_blocks.", "mid_block.")
    return {
        n: m
        for part in parts
        for n, m in modules.items()
        if n.startswith(part) and n.endswith("attn2.to_v")
    }


@contextmanager
def hooks(model: Model, hook: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """While it lasts, hook(layer, output) sees the output of every value
    layer, and may return another.
    """
    with ExitStack() as stack:
        for name, module in value_layers(model).items():
            handle = module.register_forward_hook(
                lambda module, args, output, name=name: hook(name, output)
            )
            stack.callback(handle.remove)
        yield


@torch.no_grad()
def eps(model: Model, x: Tensor, t: int, y: Tensor) -> Tensor:
    output = model.pipeline.unet(x, t, encoder_hidden_states=y).sample
    if model.pipeline.scheduler.config.prediction_type == "epsilon":
        return output
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = float(torch.prod(1 - betas[: t + 1]))
    return (1 - abar) ** 0.5 * x + abar**0.5 * output


def blocked_eps(model: Model, x: Tensor, t: int, y: Tensor, S: Iterable[Neuron]) -> Tensor:
    """The outputs of the neurons S are 0."""

    def zero(layer: str, output: Tensor) -> Tensor:
        output = output.clone()
        for name, i in S:
            if name == layer:
                output[..., i] = 0
        return output

    with hooks(model, zero):
        return eps(model, x, t, y)


# noise differences and scores ---------------------------------------------------------------------


def min_max(delta: Tensor, variant: str) -> Tensor:
    if variant == "paper":  # one minimum and one maximum per delta
        return (delta - delta.min()) / (delta.max() - delta.min())
    return torch.stack(
        [(channel - channel.min()) / (channel.max() - channel.min()) for channel in delta]
    )


def noise_differences(
    model: Model,
    prompt: str,
    variant: str,
    seed: int,
    S: Iterable[Neuron] = (),
    kept: Iterable[int] = SEEDS,
) -> dict[int, Tensor]:
    """Seed -> scaled eps(x_T, T, y) - x_T, with the neurons S deactivated."""
    y = model.encode([prompt]).tokens
    deltas = {}
    for k in kept:
        x_T = model.noise(prompt, [k], seed)
        delta = blocked_eps(model, x_T, TIMESTEP[variant], y, S) - x_T
        deltas[k] = min_max(delta[0], variant)
    return deltas


def ssim(a: Tensor, b: Tensor, variant: str) -> list[float]:
    """Of each pair of a batch.

    The range of scaled deltas is 1; the released code gives none, and it is measured.
    """
    values = plain_ssim(a, b, 1.0) if variant == "paper" else multi_scale_ssim(a, b)
    return values.tolist()


def plain_ssim(a: Tensor, b: Tensor, data_range: float | None) -> Tensor:
    """11 x 11 Gaussian window, averaged where it fits (torchmetrics up to 1.4; later versions
    also count a padded border).
    """
    _, places = structural_similarity_index_measure(
        a, b, sigma=1.5, data_range=data_range, return_full_image=True
    )
    return places[..., 5:-5, 5:-5].mean((1, 2, 3))


def multi_scale_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Contrast of two scales and SSIM of the third, each to the power .33; that SSIM, too,
    averaged where the window fits.
    """
    whole = multiscale_structural_similarity_index_measure(
        a, b, reduction="none", kernel_size=11, betas=(0.33, 0.33, 0.33)
    )
    a, b = (avg_pool2d(avg_pool2d(x, 2), 2) for x in (a, b))
    counted = structural_similarity_index_measure(a, b, sigma=1.5, reduction="none")
    return whole * (plain_ssim(a, b, None) / counted) ** 0.33


def best_scores(deltas: dict[int, Tensor], variant: str) -> dict[int, float]:
    """Seed -> its best pairwise score, all pairs in one batch.

    The best of all is the memorization score of the prompt.
    """
    order = list(combinations(deltas, 2))
    first, second = (torch.stack([deltas[pair[i]] for pair in order]) for i in (0, 1))
    pairs = dict(zip(order, ssim(first, second, variant), strict=True))
    return {k: max(score for pair, score in pairs.items() if k in pair) for k in deltas}


def memorization_score(model: Model, prompt: str, variant: str, seed: int) -> float:
    return max(best_scores(noise_differences(model, prompt, variant, seed), variant).values())


# calibration --------------------------------------------------------------------------------------


def activations(model: Model, prompt: str) -> Statistics:
    """Mean over all token positions of |activation|, read off the value
    layers during a U-Net pass.
    """
    seen = {}

    def read(layer: str, output: Tensor) -> None:
        seen[layer] = output[0].abs().mean(dim=0)

    with hooks(model, read):
        eps(model, model.noise(prompt, [0]), 981, model.encode([prompt]).tokens)
    return seen


def mean_and_std(model: Model, prompts: list[str]) -> tuple[Statistics, Statistics]:
    rows = [activations(model, prompt) for prompt in prompts]
    stacks = {layer: torch.stack([row[layer] for row in rows]) for layer in value_layers(model)}
    return {n: a.mean(dim=0) for n, a in stacks.items()}, {
        n: a.std(dim=0, unbiased=True) for n, a in stacks.items()
    }


def threshold(scores: list[float]) -> float:
    return float(torch.tensor(scores).mean() + torch.tensor(scores).std())


# the algorithms -----------------------------------------------------------------------------------


def out_of_distribution(
    a: Statistics, mean: Statistics, std: Statistics, theta: float, k: int
) -> set[Neuron]:
    """Algorithm 2: |z| > theta, and the k largest activations of every layer."""
    S = set()
    for layer in a:
        z = (a[layer] - mean[layer]) / std[layer]
        S |= {(layer, i) for i in range(len(z)) if abs(z[i]) > theta}
        S |= {(layer, int(i)) for i in a[layer].argsort(descending=True)[:k]}
    return S


def initial_selection(
    select: Callable[[float, int], set[Neuron]],
    score: Callable[[set[Neuron]], float],
    tau: float,
    trials: int,
) -> tuple[set[Neuron], float, float, int]:
    """Algorithm 3: candidates, tau_ref, theta and k."""
    theta = 5.0
    k = 0
    for _ in range(trials - 1):
        S = select(theta, k)
        if score(S) <= tau:
            return S, tau, theta, k
        theta = theta - 0.25
        k = k + 1
    S = select(theta, k)
    return S, max(tau, score(S)), theta, k


def refinement(
    S: set[Neuron],
    score: Callable[[set[Neuron]], float],
    tau_ref: float,
    layers: list[str],
    variant: str,
) -> set[Neuron]:
    """Algorithm 4: what can be active without the score rising above tau_ref is dropped,
    layers first, then neurons.

    In the released code the score has to fall below.
    """
    stays = operator.le if variant == "paper" else operator.lt
    for layer in layers:
        rest = {neuron for neuron in S if neuron[0] != layer}
        if stays(score(rest), tau_ref):
            S = rest
    for layer in layers:
        for neuron in sorted(neuron for neuron in S if neuron[0] == layer):
            if stays(score(S - {neuron}), tau_ref):
                S = S - {neuron}
    return S


@dataclass
class Found:
    score_before: float
    kept: list[int]
    score: Callable[[set[Neuron]], float]
    margin: float  # how far the compared scores stay from what they are compared with
    candidates: set[Neuron] = field(default_factory=set)
    neurons: set[Neuron] = field(default_factory=set)
    tau_ref: float | None = None
    theta: float | None = None
    k: int | None = None
    layers: list[str] = field(
        default_factory=list
    )  # that hold candidates, in the order of refinement


def search(
    model: Model,
    prompt: str,
    variant: str,
    seed: int,
    tau: float,
    mean: Statistics,
    std: Statistics,
) -> Found:
    unblocked = noise_differences(model, prompt, variant, seed)
    best = best_scores(unblocked, variant)
    counts = operator.ge if variant == "paper" else operator.gt
    kept = [
        k for k in SEEDS if counts(best[k], tau)
    ]  # Algorithm 1's seed filter, once, on the unblocked model
    compared = []

    def score(S: set[Neuron]) -> float:
        """Unblocked against blocked delta of the same seed, maximum over the kept seeds."""
        blocked = noise_differences(model, prompt, variant, seed, S, kept)
        before, after = (torch.stack([deltas[k] for k in kept]) for deltas in (unblocked, blocked))
        compared.append(max(ssim(before, after, variant)))
        return compared[-1]

    found = Found(max(best.values()), kept, score, min(abs(s - tau) for s in best.values()))
    if not kept:
        return found

    a = activations(model, prompt)
    found.candidates, found.tau_ref, found.theta, found.k = initial_selection(
        lambda theta, k: out_of_distribution(a, mean, std, theta, k), score, tau, TRIALS[variant]
    )
    found.margin = min([found.margin, *(abs(s - tau) for s in compared)])

    compared.clear()
    layers = [
        layer
        for layer in value_layers(model)
        if any(neuron[0] == layer for neuron in found.candidates)
    ]
    found.layers = layers if variant == "paper" else layers[::-1]
    found.neurons = refinement(found.candidates, score, found.tau_ref, found.layers, variant)
    found.margin = min([found.margin, *(abs(s - found.tau_ref) for s in compared)])
    return found


# the models ---------------------------------------------------------------------------------------

PROMPTS = ["a red apple on a table", "blue sky", "two dogs run", "old city map 1890", "mountains"]


@dataclass
class Studied:
    """A model and its calibration, by findnemo and by the transcription."""

    model: Model
    variant: str
    seed: int
    calibration: Calibration
    scores: list[float]
    mean: Statistics
    std: Statistics

    @property
    def settings(self) -> Settings:
        return replace(VARIANTS[self.variant], seed=self.seed)


def loud_model(
    prediction_type: str, size: int, seed: int, attention: tuple[float, ...], output: float
) -> Model:
    """A random U-Net with 3 value layers (widths 8, 16, 16) that says more about the
    text than about the latents.

    Its pattern is what cross-attention adds, seen through the zero padding; without gain, the value
    neurons hardly matter.
    """
    pipeline = tiny_pipeline(
        prediction_type,
        size,
        seed,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("UpBlock2D",) * 3,
    )
    layers = [m for n, m in pipeline.unet.named_modules() if n.endswith("attn2.to_out.0")]
    with torch.no_grad():
        pipeline.unet.conv_in.weight.mul_(0.003)
        pipeline.unet.conv_out.weight.mul_(output)
        for layer, factor in zip(layers, attention, strict=True):
            layer.weight.mul_(factor)
    return findnemo.load(pipeline)


MODELS = {
    "released": ("released", 0, ("epsilon", 64, 0, (10, 50, 50), 100)),
    "released, v": ("released", 0, ("v_prediction", 64, 1, (30, 100, 100), 2)),
    "paper": ("paper", 3, ("epsilon", 16, 2, (10, 50, 50), 100)),
}


@cache
def studied(name: str) -> Studied:
    variant, seed, options = MODELS[name]
    model = loud_model(*options)
    calibration = findnemo.calibrate(model, PROMPTS, variant=variant, seed=seed)
    scores = [memorization_score(model, prompt, variant, seed) for prompt in PROMPTS]
    return Studied(model, variant, seed, calibration, scores, *mean_and_std(model, PROMPTS))


# the comparison -----------------------------------------------------------------------------------

LONG = "@" * 60
TITLE = "Starry night by van Gogh"
LETTERS = "QQQQ"
CODE = "xyz 123"


@dataclass(frozen=True)
class Case:
    """A prompt and a tau (None: the calibrated one), and what the case is there for: how many
    seeds pass, where it ends.
    """

    model: str
    prompt: str
    tau: float | None
    kept: int
    trial: int | None
    reached: bool = True

    def __str__(self) -> str:
        return f"{self.model}-{self.prompt[:4]}-{self.tau}"


CASES = [
    Case("released", CODE, 0.7294, kept=3, trial=3),
    Case("released", LETTERS, 0.6034, kept=3, trial=1),
    Case("released", TITLE, None, kept=0, trial=None),
    Case("released, v", CODE, 0.3972, kept=2, trial=13),
    Case("released, v", TITLE, 0.4207, kept=2, trial=15, reached=False),
    Case("paper", LONG, None, kept=5, trial=1),
    Case("paper", LONG, 0.74, kept=3, trial=0),
    Case("paper", LETTERS, 0.6808, kept=4, trial=7),
    Case("paper", TITLE, None, kept=0, trial=None),
    Case("paper", TITLE, 0.5125, kept=10, trial=17, reached=False),
]
MEMORIZED = [case for case in CASES if case.kept]
V = "released, v"


def those_of_v_slow(items):
    """Models or cases; calibration and search of v-prediction take the longest."""
    model = [getattr(item, "model", item) for item in items]
    slow = pytest.mark.slow
    return [pytest.param(i, marks=slow) if m == V else i for i, m in zip(items, model, strict=True)]


ORDERED = [case for case in CASES if case.model in ("released", "paper") and case.prompt == LETTERS]


@cache
def expected(case: Case) -> Found:
    known = studied(case.model)
    tau = case.tau or known.calibration.tau
    return search(known.model, case.prompt, known.variant, known.seed, tau, known.mean, known.std)


@cache
def found(case: Case) -> findnemo.Localization:
    known = studied(case.model)
    calibration = replace(known.calibration, tau=case.tau or known.calibration.tau)
    return findnemo.localize(known.model, case.prompt, calibration, search="listing")


@pytest.mark.slow
@pytest.mark.parametrize("name", those_of_v_slow(MODELS))
def test_calibration_is_that_of_the_transcription(name):
    known = studied(name)
    torch.testing.assert_close(
        known.calibration.scores, torch.tensor(known.scores), atol=1e-4, rtol=0, check_dtype=False
    )
    assert known.calibration.tau == pytest.approx(threshold(known.scores), abs=1e-4)
    assert (
        list(known.calibration.mean)
        == list(known.calibration.std)
        == list(value_layers(known.model))
    )
    for layer in value_layers(known.model):
        torch.testing.assert_close(
            known.calibration.mean[layer], known.mean[layer], atol=1e-5, rtol=0, check_dtype=False
        )
        torch.testing.assert_close(
            known.calibration.std[layer], known.std[layer], atol=1e-5, rtol=0, check_dtype=False
        )


@pytest.mark.parametrize("name", those_of_v_slow(MODELS))
def test_score_is_that_of_the_transcription(name):
    known = studied(name)
    score = findnemo.score(known.model, LONG, settings=known.settings)
    assert score == pytest.approx(
        memorization_score(known.model, LONG, known.variant, known.seed), abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", those_of_v_slow(CASES), ids=str)
def test_the_case_is_what_it_says_and_nothing_sits_on_a_knifes_edge(case):
    end = expected(case)
    assert (len(end.kept), end.k) == (case.kept, case.trial)
    assert end.margin > 1e-4
    if case.kept:
        assert (end.tau_ref == (case.tau or studied(case.model).calibration.tau)) == case.reached
        assert set() < end.neurons < end.candidates


@pytest.mark.first(1)
@pytest.mark.parametrize("case", those_of_v_slow(CASES), ids=str)
def test_scores_and_sets_are_those_of_the_transcription(case):
    result = found(case)
    end = expected(case)
    assert result.memorized == bool(end.kept)
    assert result.score_before == pytest.approx(end.score_before, abs=1e-4)
    assert set(result.candidates) == end.candidates
    assert set(result.neurons) == end.neurons


@pytest.mark.first(1)
@pytest.mark.parametrize("case", those_of_v_slow(MEMORIZED), ids=str)
def test_score_after_is_that_of_the_kept_seeds(case):
    end = expected(case)
    assert found(case).score_after == pytest.approx(end.score(end.neurons), abs=1e-4)


@pytest.mark.parametrize("case", those_of_v_slow(CASES), ids=str)
def test_theta_and_k_are_those_of_the_trial_that_algorithm_3_ends_with(case):
    assert (found(case).theta, found(case).k) == (expected(case).theta, expected(case).k)


@pytest.mark.parametrize("case", ORDERED, ids=str)
def test_the_order_of_refinement_matters_here(case):
    end = expected(case)
    variant = studied(case.model).variant
    assert (
        refinement(end.candidates, end.score, end.tau_ref, end.layers[::-1], variant) != end.neurons
    )


@pytest.mark.parametrize(("name", "counts"), [("paper", True), ("released", False)])
def test_a_score_of_exactly_tau_counts_in_the_paper_and_not_in_the_released_code(name, counts):
    known = studied(name)
    score = float(findnemo.score(known.model, TITLE, settings=known.settings))
    at_tau = replace(known.calibration, tau=score)
    assert findnemo.detect(known.model, TITLE, at_tau).memorized == counts
    assert findnemo.localize(known.model, TITLE, at_tau, search="listing").memorized == counts
    assert findnemo.detect(known.model, TITLE, replace(at_tau, tau=score - 1e-6)).memorized


def test_the_fast_search_of_the_released_variant_holds_what_the_transcription_measures():
    """All kept seeds in one batch, as in the released code: what was found is under tau there,
    and without any one neuron it is not.
    """
    case = CASES[0]
    known = studied(case.model)
    end = expected(case)
    found = findnemo.localize(
        known.model, case.prompt, replace(known.calibration, tau=case.tau), search="gradient"
    )
    neurons = set(found.neurons)
    assert found.score_after == pytest.approx(end.score(neurons), abs=1e-4)
    assert found.score_after <= case.tau
    assert all(end.score(neurons - {neuron}) > case.tau - 1e-4 for neuron in neurons)
