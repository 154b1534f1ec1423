"""Dynamical singularity: how far the prediction with the prompt moves in one guided step ("Early
Detection of Memorization in Diffusion Models", ICML 2026).
"""

from __future__ import annotations

from itertools import islice

import torch

from findnemo.detection._guidance import Step, diffusion, guided_run
from findnemo.detection._score import Score, mean_score
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.passes import counting


@torch.no_grad()
def dsm(
    model: Model, prompt: str, settings: ImageSettings, *, images: int = 4, step: int = 0
) -> Score:
    """DSM = || eps(x_{k+1}, t_{k+1}, y) - eps(x_k, t_k, y) ||_2^2 of each image, mean over images.

    k is `step`: position in a run of `settings.steps` DDIM steps guided by `settings.guidance`
    (published: 50 and 7.5), from x_T on. The authors report 0, and 1 as slightly better. It takes 2
    (k + 2) evaluations an image. Raises InputError if the run lacks that step or a next one,
    ModelError for flow matching, NumericalError on NaN. Source: "Early Detection of Memorization in
    Diffusion Models" (ICML 2026), DSM, as in its released code.

    >>> import findnemo
    >>> model, settings = findnemo.load("demo"), findnemo.demo.image_settings()
    >>> known, other = (dsm(model, c, settings) for c in ("Liftoff of the Corvus Nine, a white arrow over a checkered floor", "a red star"))
    >>> known.value > other.value, known.evaluations
    (True, 16)
    """
    network = diffusion(model)
    if not 0 <= step < settings.steps - 1:
        raise InputError(
            f"a run of {settings.steps} steps does not go from step {step} to the next: give"
            f" {step + 2 if step >= 0 else 2} steps or more, and a position of 0 or more"
        )

    def eps(seen: Step) -> torch.Tensor:
        return network.as_noise(seen.conditional, seen.latents, seen.timestep)

    with counting(model) as spent:
        run = guided_run(model, prompt, images, settings)
        before, after = map(eps, islice(run, step, step + 2))
    return mean_score((after - before).square().flatten(1).sum(1), spent)
