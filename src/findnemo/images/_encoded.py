"""Pictures in the form for a model's autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from findnemo.models import Model

if TYPE_CHECKING:
    from PIL import Image


def pixels(picture: Image.Image, model: Model) -> Tensor:
    """A picture in the form for the model's encoder: (1, 3, H, W) in [-1, 1], its middle square at
    the model's native size.
    """
    import numpy as np
    from PIL import ImageOps

    height, width = size(model)
    fitted = ImageOps.fit(picture.convert("RGB"), (width, height))
    return torch.from_numpy(np.asarray(fitted, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def size(model: Model) -> tuple[int, int]:
    """(H, W) in pixels of the model's images."""
    _, height, width = model.latent_shape
    factor = int(getattr(model.pipeline, "vae_scale_factor", 1))
    return height * factor, width * factor


def latents_of(picture: Image.Image, model: Model) -> Tensor:
    """The latent (1, C, H, W) of a picture."""
    return model.encode_images(pixels(picture, model))
