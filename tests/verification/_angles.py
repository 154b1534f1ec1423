"""Judges whose figures can be computed in the head, and neurons of a layer that tests make loud."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from findnemo.images import ImageSettings
from findnemo.neurons import NeuronSet
from findnemo.settings import Settings

SETTINGS = Settings(samples=3)
IMAGES = ImageSettings(steps=1)
MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
NEURONS = NeuronSet({MID: range(20)})
PROMPT = "a red fox"


def picture(degrees: float) -> Image.Image:
    return Image.new("L", (4, 4), round(degrees)).convert("RGB")


def by_angle(images) -> torch.Tensor:
    """A descriptor whose cosines can be done in the head: a grey value is an angle in degrees."""
    angles = torch.tensor([np.asarray(image).mean() for image in images]).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def by_brightness(images, captions) -> torch.Tensor:
    return torch.tensor(
        [len(c) + np.asarray(i).mean() / 100 for i, c in zip(images, captions, strict=True)]
    )


def cos(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def flat(images) -> list[bytes]:
    return [image.tobytes() for image in images]
