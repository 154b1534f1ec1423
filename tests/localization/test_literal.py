"""Scores and sets equal a literal, naive transcription of NeMo's listings (Hintersdorf, Struppek et al., NeurIPS 2024).

The transcription below uses the U-Net, forward hooks and torchmetrics. Of findnemo it takes the initial latents and the
prompt embeddings, nothing else: one seed at a time, no batches, no caches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from findnemo import Model

Neuron = tuple[str, int]

SEEDS = range(10)
TIMESTEP = {"paper": 981, "released": 961}  # of a 50-step DDIM schedule: the first; the second, with an un-stepped x_T
TRIALS = {"paper": 18, "released": 16}


# the U-Net, and what is read from it or blocked in it ----------------------------------------------------------------


def value_layers(model: Model) -> dict[str, torch.nn.Module]:
    """`attn2.to_v` of the down blocks, then of the mid block."""
    modules = dict(model.pipeline.unet.named_modules())
    parts = ("down_blocks.", "mid_block.")
    return {n: m for part in parts for n, m in modules.items() if n.startswith(part) and n.endswith("attn2.to_v")}


@contextmanager
def hooks(modules: dict[str, torch.nn.Module], hook: Callable[[str, Tensor], Tensor | None]):
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(module.register_forward_hook(lambda m, i, out, name=name: hook(name, out)))
        yield


def blocking(model: Model, blocked: Iterable[Neuron]):
    """The outputs of the blocked neurons are 0."""

    def zero(layer: str, output: Tensor) -> Tensor:
        output = output.clone()
        for name, i in blocked:
            if name == layer:
                output[..., i] = 0
        return output

    return hooks(value_layers(model), zero)


@torch.no_grad()
def eps(model: Model, x: Tensor, t: int, y: Tensor) -> Tensor:
    output = model.pipeline.unet(x, t, encoder_hidden_states=y).sample
    if model.pipeline.scheduler.config.prediction_type == "epsilon":
        return output
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = float(torch.prod(1 - betas[: t + 1]))
    return (1 - abar) ** 0.5 * x + abar**0.5 * output


# noise differences and scores ----------------------------------------------------------------------------------------


def min_max(delta: Tensor, variant: str) -> Tensor:
    if variant == "paper":  # one minimum and one maximum per delta
        return (delta - delta.min()) / (delta.max() - delta.min())
    return torch.stack([(channel - channel.min()) / (channel.max() - channel.min()) for channel in delta])


def noise_differences(
    model: Model, prompt: str, variant: str, seed: int, blocked: Iterable[Neuron] = (), samples: Iterable[int] = SEEDS
) -> dict[int, Tensor]:
    """Seed -> scaled eps(x_T, T, y) - x_T, with the blocked neurons switched off."""
    y, deltas = model.encode([prompt]), {}
    for k in samples:
        x_T = model.noise(prompt, [k], seed)
        with blocking(model, blocked):
            deltas[k] = min_max((eps(model, x_T, TIMESTEP[variant], y) - x_T)[0], variant)
    return deltas


def ssim(a: Tensor, b: Tensor, variant: str) -> float:
    return float(plain_ssim(a, b) if variant == "paper" else multi_scale_ssim(a, b))


def plain_ssim(a: Tensor, b: Tensor) -> Tensor:
    """11 x 11 Gaussian window, averaged over the places where it fits (from 1.5 on, torchmetrics also counts a padded border)."""
    _, places = structural_similarity_index_measure(a[None], b[None], sigma=1.5, data_range=1.0, return_full_image=True)
    return places[..., 5:-5, 5:-5].mean()


def multi_scale_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Contrasts of three scales and SSIM of the last, each to the power .33; that SSIM without torchmetrics' border."""
    whole = multiscale_structural_similarity_index_measure(
        a[None], b[None], kernel_size=11, data_range=1.0, betas=(0.33, 0.33, 0.33)
    )
    last = [avg_pool2d(avg_pool2d(x, 2), 2) for x in (a, b)]
    counted = structural_similarity_index_measure(last[0][None], last[1][None], sigma=1.5, data_range=1.0)
    return whole * (plain_ssim(*last) / counted) ** 0.33


def pairwise(deltas: dict[int, Tensor], variant: str) -> dict[tuple[int, int], float]:
    return {(j, k): ssim(deltas[j], deltas[k], variant) for j, k in combinations(deltas, 2)}


def memorization_score(model: Model, prompt: str, variant: str, seed: int) -> float:
    return max(pairwise(noise_differences(model, prompt, variant, seed), variant).values())


# calibration ---------------------------------------------------------------------------------------------------------


def activations(model: Model, prompt: str) -> dict[str, Tensor]:
    """Mean over all token positions of |activation|, read off the value layers during a U-Net pass."""
    seen: dict[str, Tensor] = {}
    y = model.encode([prompt])
    with hooks(value_layers(model), lambda name, output: seen.update({name: output[0].abs().mean(dim=0)})):
        eps(model, model.noise(prompt, [0]), 981, y)
    return seen


def threshold(scores: list[float]) -> float:
    return float(torch.tensor(scores).mean() + torch.tensor(scores).std())


def statistics(model: Model, prompts: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    rows = [activations(model, prompt) for prompt in prompts]
    stacked = {layer: torch.stack([row[layer] for row in rows]) for layer in value_layers(model)}
    return {n: a.mean(dim=0) for n, a in stacked.items()}, {n: a.std(dim=0, unbiased=True) for n, a in stacked.items()}


# the algorithms ------------------------------------------------------------------------------------------------------


def replicating_seeds(deltas: dict[int, Tensor], tau: float, variant: str) -> list[int]:
    """Algorithm 1's filter, on the unblocked model: a seed whose best pairwise score is below tau is dropped."""
    pairs = pairwise(deltas, variant)
    return [k for k in deltas if max(score for pair, score in pairs.items() if k in pair) >= tau]


def out_of_distribution(
    a: dict[str, Tensor], mean: dict[str, Tensor], std: dict[str, Tensor], theta: float, k: int
) -> set[Neuron]:
    """Algorithm 2: |z| > theta, and the k largest activations of every layer."""
    S = set()
    for layer in a:
        z = (a[layer] - mean[layer]) / std[layer]
        S |= {(layer, i) for i in range(len(z)) if abs(z[i]) > theta}
        S |= {(layer, int(i)) for i in a[layer].argsort(descending=True)[:k]}
    return S


def initial_selection(
    select: Callable[[float, int], set[Neuron]], score: Callable[[set[Neuron]], float], tau: float, trials: int
) -> tuple[set[Neuron], float, float, int]:
    """Algorithm 3: candidates, tau_ref, and the theta and k they were found with."""
    theta, k = 5.0, 0
    for trial in range(trials):
        theta, k = 5.0 - 0.25 * trial, trial
        S = select(theta, k)
        reached = score(S)
        if reached <= tau:
            return S, tau, theta, k
    return S, reached, theta, k


def refinement(S: set[Neuron], score: Callable[[set[Neuron]], float], tau_ref: float, layers: list[str]) -> set[Neuron]:
    """Algorithm 4: whatever can be re-activated without the score rising above tau_ref is dropped, first layers, then neurons."""
    S = set(S)
    for layer in layers:
        rest = {n for n in S if n[0] != layer}
        if score(rest) <= tau_ref:
            S = rest
    for layer in layers:
        for neuron in sorted(n for n in S if n[0] == layer):
            if score(S - {neuron}) <= tau_ref:
                S = S - {neuron}
    return S


@dataclasses.dataclass
class Found:
    before: float
    after: float = float("nan")
    kept: list[int] = dataclasses.field(default_factory=list)
    candidates: set[Neuron] = dataclasses.field(default_factory=set)
    neurons: set[Neuron] = dataclasses.field(default_factory=set)
    other_order: set[Neuron] = dataclasses.field(default_factory=set)  # refined in the other variant's order
    tau_ref: float = float("nan")
    theta: float | None = None
    k: int | None = None
    margin: float = 1.0  # the least distance of a score from the threshold it was compared with


def localize(
    model: Model,
    prompt: str,
    variant: str,
    seed: int,
    tau: float,
    mean: dict[str, Tensor],
    std: dict[str, Tensor],
) -> Found:
    unblocked = noise_differences(model, prompt, variant, seed)
    best = {k: max(s for pair, s in pairwise(unblocked, variant).items() if k in pair) for k in SEEDS}
    kept = replicating_seeds(unblocked, tau, variant)
    found = Found(before=max(best.values()), kept=kept, margin=min(abs(s - tau) for s in best.values()))
    if not kept:
        return found

    compared = []

    def score(S: set[Neuron]) -> float:
        """Unblocked against blocked delta of the same seed, maximum over kept seeds."""
        blocked = noise_differences(model, prompt, variant, seed, S, kept)
        compared.append(max(ssim(unblocked[k], blocked[k], variant) for k in kept))
        return compared[-1]

    a = activations(model, prompt)
    found.candidates, found.tau_ref, found.theta, found.k = initial_selection(
        lambda theta, k: out_of_distribution(a, mean, std, theta, k), score, tau, TRIALS[variant]
    )
    found.margin = min(found.margin, *(abs(s - tau) for s in compared))
    compared.clear()
    forward = [layer for layer in value_layers(model) if any(n[0] == layer for n in found.candidates)]
    layers = forward if variant == "paper" else forward[::-1]
    found.neurons = refinement(found.candidates, score, found.tau_ref, layers)
    found.margin = min(found.margin, *(abs(s - found.tau_ref) for s in compared))
    found.after = score(found.neurons)
    found.other_order = refinement(found.candidates, score, found.tau_ref, layers[::-1])
    return found
