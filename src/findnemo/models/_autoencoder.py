"""Autoencoders of any kind: AutoencoderKL, tiny, asymmetric and quantising ones, and consistency
decoders.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import ModelError

LATENTS = ("latents", "latent")  # names of the output of encoders without a distribution


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1], float32, of latents (N, C, H, W) scaled for the autoencoder.

    A decoder that draws noise (a consistency decoder) gets the same noise for every image, so that
    an image depends on its latent alone.
    """
    latents = latents.to(vae.dtype)
    if "num_inference_steps" not in inspect.signature(vae.decode).parameters:
        images: Tensor = vae.decode(latents, return_dict=False)[0]
        return images.float()
    each = [
        vae.decode(one, generator=torch.Generator().manual_seed(0), return_dict=False)[0]
        for one in latents.split(1)
    ]
    return torch.cat(each).float()


def encoded(vae: Any, pixels: Tensor) -> Tensor:
    """Latents (N, C, H, W) of images (N, 3, H, W) in [-1, 1]; the mode, if the encoder gives a
    distribution.

    Raises ModelError for an encoder that gives neither a distribution nor latents.
    """
    output = vae.encode(pixels.to(vae.dtype))
    distribution = getattr(output, "latent_dist", None)
    given = [getattr(output, name, None) for name in LATENTS]
    if distribution is not None:
        given = [distribution.mode()]
    for latents in given:
        if latents is not None:
            return latents
    raise ModelError(
        f"the encoder of {type(vae).__name__} gives neither latent_dist nor latents: findnemo"
        " encodes training images with it; give the pipeline's own autoencoder (AutoencoderKL)"
    )
