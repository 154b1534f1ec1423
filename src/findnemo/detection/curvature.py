"""Decoupled curvature of the log-probability ("Early Detection of Memorization in Diffusion
Models", ICML 2026).

With the prompt of a memory, the landscape differs from that without a prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from findnemo.detection._guidance import diffusion, pure_noise
from findnemo.detection._score import Score, mean_score
from findnemo.images import ImageSettings
from findnemo.models import Model, Text
from findnemo.passes import counting
from findnemo.passes.gradients import frozen
from findnemo.runtime.state import undisturbed


@undisturbed
def curvature(model: Model, prompt: str, settings: ImageSettings, *, images: int = 4) -> Score:
    """|| J_y^T eps(y) - J_0^T eps(empty) ||_2^2 of each image at x_T and the first timestep, mean
    over images.

    J_y and J_0 are the Jacobians in x of eps(y) and of eps(empty), so each term is the gradient of
    || eps ||^2 / 2. Six evaluations an image: two passes, each with its gradient. Raises ModelError
    for flow matching, NumericalError on NaN. Source: "Early Detection of Memorization in Diffusion
    Models" (ICML 2026), Metric 2 (decoupled metric), as in its released code.

    >>> import findnemo
    >>> model, settings = findnemo.load("demo"), findnemo.demo.image_settings()
    >>> known, other = (curvature(model, c, settings) for c in ("Liftoff of the Corvus Nine, a white arrow over a checkered floor", "a red star"))
    >>> known.value > other.value, known.evaluations
    (True, 24)
    """
    diffusion(model)
    t = model.timesteps(settings.steps)[0]
    words = model.encode([prompt]), model.unconditional()
    x = pure_noise(model, prompt, images, settings.seed).requires_grad_()

    def pull(text: Text) -> Tensor:
        with torch.enable_grad():
            energy = model.predict_noise(x, t, text.expand(images)).float().square().sum() / 2
        (slope,) = torch.autograd.grad(energy, x)
        return slope.float()

    with counting(model) as spent, frozen(model.denoiser):
        prompted, plain = map(pull, words)
    return mean_score((prompted - plain).square().flatten(1).sum(1), spent)
