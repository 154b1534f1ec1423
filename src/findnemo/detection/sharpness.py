"""Sharpness of the log-probability (Jeon et al., ICML 2025): around a memory the score changes
fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from findnemo.detection._guidance import diffusion, predict, pure_noise
from findnemo.detection._score import Score, mean_score
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.passes import counting, spend
from findnemo.runtime.state import undisturbed


@undisturbed
@torch.no_grad()
def sharpness(model: Model, prompt: str, settings: ImageSettings, *, images: int = 4) -> Score:
    """|| J_s s ||_2^2 of each image at x_T and the first timestep, mean over images.

    s = -(eps(y) - eps(empty)) / sqrt(1 - a) is the prompt's part of the score, J_s its Jacobian in
    x. The product is a derivative of s along s, computed in one forward-mode pass in the model's
    precision (the authors use float32). The authors' code averages the norms without the square,
    and takes v for x_0 in a model that predicts v; here v is converted to eps. Six evaluations an
    image: two for s, and two in forward mode, which cost twice as much. Raises ModelError for flow
    matching, NumericalError on NaN. Source: Jeon et al. 2025 (SAIL), section 4.

    >>> import findnemo
    >>> model, settings = findnemo.load("demo"), findnemo.demo.image_settings()
    >>> known, other = (sharpness(model, c, settings) for c in ("Liftoff of the Corvus Nine, a white arrow over a checkered floor", "a red star"))
    >>> known.value > other.value, known.evaluations
    (True, 24)
    """
    network = diffusion(model)
    t = model.timesteps(settings.steps)[0]
    text = model.encode([prompt])
    empty = model.unconditional()
    x = pure_noise(model, prompt, images, settings.seed)
    # attention in plain operations: the fused kernels have no derivative in forward mode
    with counting(model) as spent, sdpa_kernel(SDPBackend.MATH), _contiguous_norms(model):
        d = predict(model, x, t, text, empty).gap
        with forward_ad.dual_level():
            moving = forward_ad.make_dual(x, d.to(x.dtype))
            slope = forward_ad.unpack_dual(predict(model, moving, t, text, empty).gap).tangent
        spend(2 * images)  # for the derivatives, in addition to the values
    _, noise = network.mixture(t)
    return mean_score((slope / noise.to(slope) ** 2).square().flatten(1).sum(1), spent)


@contextmanager
def _contiguous_norms(model: Model) -> Iterator[None]:
    """Give group norms contiguous inputs: forward mode refuses them in the layout channels last."""
    with ExitStack() as stack:
        for module in model.denoiser.modules():
            if isinstance(module, nn.GroupNorm):
                stack.callback(module.register_forward_pre_hook(_contiguous).remove)
        yield


def _contiguous(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.contiguous() for x in args)
