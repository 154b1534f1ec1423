"""Parts of different models are refused when the widths in their configurations do not agree."""

from __future__ import annotations

import pytest
from _odd_pipelines import clip, sd, with_parts
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_pixart, tiny_sd3, tiny_t5, tiny_vae
from _tiny_unets import tiny_if, tiny_sdxl

import findnemo
from findnemo.errors import ModelError

MISFITS = {
    "refiner": (
        with_parts(lambda: tiny_sdxl(projection_class_embeddings_input_dim=5 * 8 + 32), text_encoder_2=lambda p: clip(32, 32)),
        r"U-Net is that of a refiner, which takes 5 numbers.*is 72, 32 \+ 5 x 8.*give the base model",
    ),
    "sdxl pooled": (with_parts(tiny_sdxl, text_encoder_2=lambda p: clip(32, 40)), r"pooled embedding of its text_encoder_2 is 40, .* is 24"),
    "sdxl narrower": (with_parts(tiny_sdxl, text_encoder_2=lambda p: clip(32, 8)), r"pooled embedding of its text_encoder_2 is 8, .* is 24"),
    "sdxl tokens": (with_parts(tiny_sdxl, text_encoder=lambda p: clip(32)), "text encoders together is 64, and cross_attention_dim of its U-Net is 48"),
    "sdxl first alone": (with_parts(tiny_sdxl, text_encoder=None, tokenizer=None), "together is 32, and cross_attention_dim of its U-Net is 48"),
    "sd width": (with_parts(tiny_pipeline, text_encoder=lambda p: clip(48)), "text_encoder is 48, and cross_attention_dim of its U-Net is 32"),
    "vocabulary": (with_parts(tiny_pipeline, text_encoder=lambda p: clip(32, vocabulary=300)), "tokenizer is 514, and that of its text_encoder is 300"),
    "sd3 t5": (with_parts(tiny_sd3, text_encoder_3=lambda p: tiny_t5(48)), "text_encoder_3 is 48, and joint_attention_dim of its transformer is 64"),
    "sd3 pooled": (with_parts(tiny_sd3, text_encoder_2=lambda p: clip(32, 16)), "is 48, and pooled_projection_dim of its transformer is 64"),
    "sd3 cut by diffusers": (with_parts(tiny_sd3, text_encoder_2=lambda p: clip(64, 32)), "together is 96, and joint_attention_dim .* is 64"),
    "flux t5": (with_parts(tiny_flux, text_encoder_2=lambda p: tiny_t5(48)), "text_encoder_2 is 48, and joint_attention_dim"),
    "flux pooled": (with_parts(tiny_flux, text_encoder=lambda p: clip(24)), "is 24, and pooled_projection_dim of its transformer is 32"),
    "flux latents": (with_parts(tiny_flux, vae=lambda p: tiny_vae(2, latent_channels=8)), "four times latent_channels of its vae is 32, and in_channels"),
    "pixart": (with_parts(tiny_pixart, text_encoder=lambda p: tiny_t5(48)), "is 48, and caption_channels of its transformer is 320"),
    "if": (with_parts(tiny_if, text_encoder=lambda p: tiny_t5(32)), "text_encoder is"),
    "sd latents": (with_parts(tiny_pipeline, vae=lambda p: tiny_vae(2, latent_channels=8)), "latent_channels of its vae is 8, and in_channels of its unet is 4"),
    "odd channels": (sd(in_channels=5, out_channels=5), "latent_channels of its vae is 4, and in_channels of its unet is 5"),
    "grey": (with_parts(tiny_pipeline, vae=lambda p: tiny_vae(2, in_channels=1, out_channels=1)), "in_channels of its vae is 1"),
}  # fmt: skip


@pytest.mark.first(1)
@pytest.mark.parametrize("name", MISFITS)
def test_a_pipeline_that_cannot_be_worked_on_is_refused_when_it_is_loaded(name):
    make, message = MISFITS[name]
    pipeline = make()
    with pytest.raises(ModelError, match=message):
        findnemo.load(pipeline)
