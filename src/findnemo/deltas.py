"""Noise differences of a prompt, the raw material of scores and searches (Finding NeMo, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from findnemo.edits import deactivate
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.scores import SIMILARITIES, memorization_score, minmax, pairwise
from findnemo.settings import PAPER, Settings


class Probe:
    """One prompt under one model: text encoded once, latents drawn once, every delta one U-Net pass.

    `samples` are the sample numbers of the initial latents (default 0 .. settings.samples - 1). `evaluations` counts U-Net
    sample evaluations: one latent through the U-Net once, twice under guidance.
    """

    def __init__(self, model: Model, prompt: str, settings: Settings = PAPER, samples: Sequence[int] | None = None):
        self.model, self.prompt, self.settings = model, prompt, settings
        self.samples = tuple(range(settings.samples) if samples is None else samples)
        self.timestep = model.timesteps(settings.steps)[settings.timestep]
        self.text = model.encode([prompt])
        self.latents = model.noise(prompt, self.samples, settings.seed)
        self.evaluations = 0

    @torch.no_grad()
    def deltas(self, neurons: NeuronSet = EMPTY, keep: Sequence[int] | None = None) -> Tensor:
        """Scaled noise differences (N, C, H, W) with `neurons` deactivated; `keep` picks positions among the samples.

        delta = eps(x_T, T, y) - x_T, min-max scaled to [0, 1]. Raises NumericalError on NaN.
        """
        latents = self.latents if keep is None else self.latents[list(keep)]
        with deactivate(self.model, neurons):
            eps = self._eps(latents)
        return minmax(eps.float() - latents.float(), self.settings.per_channel)

    def _eps(self, latents: Tensor) -> Tensor:
        conditional = self._predict(latents, self.text)
        if self.settings.guidance is None:
            return conditional
        unconditional = self._predict(latents, self.model.encode([""]))
        return unconditional + self.settings.guidance * (conditional - unconditional)

    def _predict(self, latents: Tensor, text: Tensor) -> Tensor:
        self.evaluations += len(latents)
        return self.model.predict_noise(latents, self.timestep, text.expand(len(latents), -1, -1))

    def score(self, neurons: NeuronSet = EMPTY) -> float:
        """Memorization score: the largest pairwise similarity of the deltas."""
        return memorization_score(self.deltas(neurons), self.settings.similarity)


class Replication:
    """The seeds of a prompt that replicate, and how like themselves they stay when neurons are deactivated (Algorithms 1 and 3)."""

    def __init__(self, probe: Probe, tau: float):
        self.probe, similarity = probe, probe.settings.similarity
        unblocked = probe.deltas()
        best = pairwise(unblocked, similarity).amax(1)
        self.score = float(best.max())
        self.kept = torch.nonzero(best >= tau).flatten().tolist()  # the seed filter; computed once, on the unblocked model
        self.unblocked = unblocked[self.kept]

    def similarity(self, neurons: NeuronSet) -> float:
        """Largest similarity between the unblocked and the blocked delta of the same seed, over the kept seeds."""
        blocked = self.probe.deltas(neurons, self.kept)
        return float(SIMILARITIES[self.probe.settings.similarity](self.unblocked, blocked).max())


def score(
    model: Model,
    prompt: str,
    neurons: NeuronSet | None = None,
    settings: Settings = PAPER,
    samples: Sequence[int] | None = None,
) -> float:
    """The memorization score of a prompt: largest pairwise SSIM of its noise differences over the seeds, in [-1, 1].

    `neurons`: switched off meanwhile. `samples`: other sample numbers than 0 .. 9, for a check on fresh seeds.
    Source: Finding NeMo, section 3.2.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> findnemo.score(model, "Brantwood Roasters first cup, a large brown ring") > 0.6
        True
    """
    return Probe(model, prompt, settings, samples).score(neurons or EMPTY)
