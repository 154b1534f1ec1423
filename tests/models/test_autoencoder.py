"""Autoencoders of every kind: images are `decoded` and `encoded`, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _odd_pipelines import with_parts
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_sd3
from _tiny_unets import tiny_sdxl
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny, ConsistencyDecoderVAE, VQModel

import findnemo
from findnemo.errors import ModelError

BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
DECODER = {
    "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
    "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
}
VAES: dict[str, Callable[[], Any]] = {
    "tiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ),
    "asymmetric": lambda: AsymmetricAutoencoderKL(
        **BLOCKS, down_block_out_channels=(8, 16), up_block_out_channels=(8, 16)
    ),
    "quantising": lambda: VQModel(**BLOCKS, block_out_channels=(8, 16), latent_channels=4),
    "consistency": lambda: ConsistencyDecoderVAE(
        encoder_block_out_channels=(32, 32),
        encoder_down_block_types=("DownEncoderBlock2D",) * 2,
        decoder_block_out_channels=(32, 32),
        **DECODER,
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl, tiny_sd3])
@pytest.mark.parametrize("kind", VAES)
def test_autoencoders_of_other_kinds_decode_and_encode(kind, make):
    torch.manual_seed(0)
    model = findnemo.load(with_parts(make, vae=VAES[kind]().eval())())
    latents = model.noise("a cat", [0, 1])
    images = model.decode(latents)
    assert images.shape == (2, 3, 32, 32)
    torch.testing.assert_close(
        model.decode(latents[1:]), images[1:], atol=1e-5, rtol=1e-4
    )  # whatever is decoded beside it
    assert torch.equal(model.decode(latents), images)
    assert model.encode_images(images).shape == latents.shape


def test_a_tiny_autoencoder_encodes_to_what_its_encoder_gives():
    model = findnemo.load(with_parts(tiny_pipeline, vae=VAES["tiny"]().eval())())
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    model.pipeline.vae.register_to_config(scaling_factor=0.5)
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_images(pixels), model.pipeline.vae.encoder(pixels) * 0.5
        )


def test_an_encoder_that_gives_neither_a_distribution_nor_latents_is_named(tiny):
    tiny.pipeline.vae.encode = lambda pixels: SimpleNamespace(codes=pixels)
    with pytest.raises(ModelError, match="encoder of AutoencoderKL gives neither latent_dist nor"):
        tiny.encode_images(torch.zeros(1, 3, 32, 32))
