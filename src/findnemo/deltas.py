"""Noise differences of a prompt, the raw material of scores and searches (Finding NeMo, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from findnemo.edits import masks, scaled
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.scores import memorization_score, minmax
from findnemo.settings import PAPER, Settings


class Probe:
    """One prompt under one model: text encoded once, latents drawn once, every delta one U-Net pass.

    `samples` are the sample numbers of the initial latents (default 0 .. settings.samples - 1). `text`: its embedding
    (1, tokens, D), if known. `evaluations` counts U-Net
    sample evaluations: one latent through the U-Net once, twice under guidance, three times with its gradient.
    """

    def __init__(
        self,
        model: Model,
        prompt: str,
        settings: Settings = PAPER,
        samples: Sequence[int] | None = None,
        text: Tensor | None = None,
    ):
        model.check_editable()
        self.model, self.prompt, self.settings = model, prompt, settings
        self.samples = tuple(range(settings.samples) if samples is None else samples)
        self.timestep = model.timesteps(settings.steps)[settings.timestep]
        self.text = model.encode([prompt]) if text is None else text
        self.empty = None if settings.guidance is None else model.encode([""])
        self.latents = model.noise(prompt, self.samples, settings.seed)
        self.evaluations = 0

    @torch.no_grad()
    def deltas(self, neurons: NeuronSet = EMPTY, keep: Sequence[int] | None = None) -> Tensor:
        """Scaled noise differences (N, C, H, W) with `neurons` deactivated; `keep` picks positions among the samples.

        delta = eps(x_T, T, y) - x_T, min-max scaled to [0, 1]. Raises NumericalError on NaN.
        """
        return self.scaled_deltas(masks(self.model, [neurons]), range(len(self.samples)) if keep is None else keep)

    def scaled_deltas(self, scales: Mapping[str, Tensor], keep: Sequence[int]) -> Tensor:
        """The same with the outputs of value layers multiplied by `scales`: layer -> (1, width), or (N, width), one mask a sample."""
        latents = self.latents[list(keep)]
        with scaled(self.model, scales):
            eps = self._eps(latents)
        return minmax(eps.float() - latents.float(), self.settings.per_channel)

    def _eps(self, latents: Tensor) -> Tensor:
        conditional = self._predict(latents, self.text)
        if self.empty is None or self.settings.guidance is None:
            return conditional
        unconditional = self._predict(latents, self.empty)
        return unconditional + self.settings.guidance * (conditional - unconditional)

    def _predict(self, latents: Tensor, text: Tensor) -> Tensor:
        self.evaluations += len(latents)
        return self.model.predict_noise(latents, self.timestep, text.expand(len(latents), -1, -1))

    def score(self, neurons: NeuronSet = EMPTY) -> float:
        """Memorization score: the largest pairwise similarity of the deltas."""
        return memorization_score(self.deltas(neurons), self.settings.similarity)


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
