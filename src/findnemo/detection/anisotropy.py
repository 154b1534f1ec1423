"""Anisotropy of the log-probability (Asthana and Belagiannis, ICLR 2026).

With little noise, the prompt of a memory pulls in the direction that the model takes without it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from findnemo.detection._guidance import diffusion, predict, pure_noise
from findnemo.detection._score import Score, mean_score
from findnemo.detection.magnitude import norms
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.passes import counting

WEIGHTS = {"epsilon": (1.0, 2.0), "v_prediction": (1.0, 0.1)}  # of norm and cosine
LATE = 0.041  # t = 41 of 1000
ENTRIES = 4 * 64 * 64  # size of the latents for which the weights were published


@torch.no_grad()
def anisotropy(
    model: Model,
    prompt: str,
    settings: ImageSettings,
    *,
    images: int = 4,
    weights: tuple[float, float] | None = None,
    pixelwise: bool = False,
) -> Score:
    """M = g_n || d(x_T, T) ||_2 + g_c cos(d, eps(empty))(x_T, t) of each image, mean over images,
    with d = eps(y) - eps(empty).

    T is the first timestep of `settings.steps`, t is 41 of 1000. Both see the same pure noise, and
    nothing is denoised. `weights`: (g_n, g_c), by default (1, 2) of Stable Diffusion 1.4 for a
    model that predicts eps, and (1, .1) of 2.0 for one that predicts v. They belong to latents of 4
    x 64 x 64. A norm grows with the square root of the number of entries, so for other sizes it is
    multiplied by sqrt(16384 / entries): 4 for 4 x 16 x 16. The cosine is that of the whole latents.
    `pixelwise`: the cosine is that of the channels at each position, mean over positions, as in the
    released code. For a model that predicts v, that code takes the cosine of raw v; here it is of
    eps. Four evaluations an image. Raises ModelError for flow matching, NumericalError on NaN.
    Source: Asthana and Belagiannis, section 4.

    >>> import findnemo
    >>> model, settings = findnemo.load("demo"), findnemo.demo.image_settings()
    >>> known, other = (anisotropy(model, c, settings) for c in ("Liftoff of the Corvus Nine, a white arrow over a checkered floor", "a red star"))
    >>> known.value > other.value, known.evaluations
    (True, 16)
    """
    network = diffusion(model)
    g_n, g_c = weights or WEIGHTS[network.prediction]
    late = round(LATE * len(network.alphas))
    text = model.encode([prompt])
    empty = model.unconditional()
    x = pure_noise(model, prompt, images, settings.seed)
    with counting(model) as spent:
        first, last = (
            predict(model, x, t, text, empty) for t in (model.timesteps(settings.steps)[0], late)
        )
    norm = norms(first.gap) * (ENTRIES / x[0].numel()) ** 0.5
    plain = network.as_noise(last.unconditional, x, late).float()
    return mean_score(g_n * norm + g_c * cosine(last.gap, plain, pixelwise), spent)


def cosine(one: Tensor, other: Tensor, pixelwise: bool = False) -> Tensor:
    """Cosine of latents (N, C, H, W) and (N, C, H, W) -> (N,).

    `pixelwise`: the cosine of the channels at each position, mean over positions.

    >>> one, other = torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])
    >>> round(cosine(one, other).item(), 3), round(cosine(one, other, pixelwise=True).item(), 3)
    (0.671, 0.5)
    """
    if pixelwise:
        return F.cosine_similarity(one, other).flatten(1).mean(1)
    return F.cosine_similarity(one.flatten(1), other.flatten(1))
