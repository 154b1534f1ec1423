"""Bright-ending attention (Chen et al., ICLR 2025): where in the image a memory lies, and the
magnitude there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from findnemo.detection._score import Score
from findnemo.detection.magnitude import check_steps, magnitude
from findnemo.errors import InputError, ModelError
from findnemo.images import ImageSettings, generate
from findnemo.models import Model
from findnemo.passes import counting, spending
from findnemo.passes.attention import recorded

if TYPE_CHECKING:
    from PIL import Image


def bright_ending(
    model: Model,
    prompt: str,
    settings: ImageSettings,
    *,
    images: int = 4,
    steps: Sequence[int] = (0,),
    raw: bool = False,
) -> Score:
    """Wen et al.'s magnitude, weighted by the soft mask m of each image: || m (eps - eps) ||_2 /
    mean(m), 0 and more.

    Dividing by the mask's mean makes masks of any area comparable; a mask of ones gives the
    magnitude itself. The mask takes a whole guided run (`soft_masks`), the magnitude uses `steps`.
    `raw`: use the attention unscaled, as published, not stretched to [0, 1]. Raises ModelError,
    InputError and NumericalError as `soft_masks` and `magnitude` do. Source: Chen et al., section 4
    (masked magnitude).

    >>> import findnemo
    >>> bright_ending(findnemo.load("demo"), "a red star", findnemo.ImageSettings(steps=2, guidance=2.0), images=1).evaluations
    6
    """
    check_steps(steps, settings)
    with spending() as spent:
        with counting(model):
            _, masks = soft_masks(model, prompt, settings, images=images, raw=raw)
        local = magnitude(model, prompt, settings, images=images, steps=steps, mask=masks)
    return Score(local.value, spent.evaluations)


@torch.no_grad()
def soft_masks(
    model: Model, prompt: str, settings: ImageSettings, *, images: int = 4, raw: bool = False
) -> tuple[list[Image.Image], Tensor]:
    """The finished images of a prompt, and masks of where the memory lies in each: (images, 1, H,
    W) in [0, 1], at the size of latents.

    A mask is the attention to the end-of-text token at the last step, averaged over heads and over
    the cross-attention layers of largest resolution in the down blocks. Unless `raw`, it is scaled
    to [0, 1] within each image; a map without contrast is 1 everywhere. The images are those of
    `generate` with the same settings. Source: Chen et al., section 3.
    """
    latest: dict[str, Tensor] = {}
    end = len(model.tokens(prompt)) - 1
    with recorded(model, lambda layer, step, p: latest.update({layer: p[..., end]})):
        pictures = generate(model, prompt, range(images), settings)
    maps = attention_map(largest(latest), model.latent_shape[1:])
    return pictures, maps if raw else min_max_scaled(maps)


def largest(maps: dict[str, Tensor]) -> Tensor:
    """Mean over the down-block layers with the most queries: layer -> (images, queries), to
    (images, queries).
    """
    down = [m for name, m in maps.items() if name.startswith("down_blocks.")]
    if not down:
        raise ModelError(
            "no cross-attention in the down blocks of this model: bright endings need it"
        )
    most = max(m.shape[1] for m in down)
    return torch.stack([m for m in down if m.shape[1] == most]).mean(0)


def attention_map(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, queries) -> (N, 1, H, W) of `size`; maps of coarser layers are enlarged."""
    height = round(math.sqrt(values.shape[1] * size[0] / size[1]))
    grid = values.unflatten(1, (height, -1))[:, None]
    return grid if grid.shape[2:] == size else F.interpolate(grid, size, mode="bilinear")


def min_max_scaled(maps: Tensor) -> Tensor:
    """Maps (N, 1, H, W), each from 0 to 1; a constant map is 1."""
    low, high = (f(maps.flatten(1), 1)[:, None, None, None] for f in (torch.amin, torch.amax))
    return torch.where(
        high > low, (maps - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny), 1.0
    )


# the picture --------------------------------------------------------------------------------------

LEAST = 256  # pixels of the shorter side
STOPS = (0.0, 0.35, 0.7, 1.0)
COLOURS = ((24, 16, 64), (140, 32, 110), (240, 100, 50), (255, 240, 130))  # from dark to bright


def mask_picture(image: Image.Image, mask: Tensor, strength: float = 0.6) -> Image.Image:
    """A mask (H, W) in [0, 1] over its image: dark violet at the least attention, bright yellow at
    the most.

    `strength`: share of the colour, 0 to 1. Small images are enlarged to 256 pixels. Raises
    InputError for a mask of another shape or range.

    >>> from PIL import Image
    >>> mask_picture(Image.new("RGB", (64, 64)), torch.linspace(0, 1, 256).view(16, 16)).size
    (256, 256)
    """
    import numpy as np
    from PIL import Image

    if mask.dim() != 2 or not (mask.min() >= 0 and mask.max() <= 1):
        raise InputError(
            f"a mask is (H, W) with values in [0, 1], this one has shape {tuple(mask.shape)}: give"
            " one image's, mask[0, 0]"
        )
    factor = max(1.0, LEAST / min(image.size))
    size = (round(image.width * factor), round(image.height * factor))
    soft = F.interpolate(mask.detach().float().cpu()[None, None], size[::-1], mode="bilinear")[
        0, 0
    ].numpy()
    colours = np.stack(
        [np.interp(soft, STOPS, channel) for channel in zip(*COLOURS, strict=True)], -1
    )
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray(((1 - strength) * pixels + strength * colours).round().astype(np.uint8))
