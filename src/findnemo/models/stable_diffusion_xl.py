"""Stable Diffusion XL: two text encoders, whose pooled embedding and the image's sizes go into the U-Net beside the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from findnemo.models._text import Text, of_width
from findnemo.models.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Neurons are the outputs of `attn2.to_v` of every transformer block in the down blocks and the mid block: 34 layers in SDXL base.

    The U-Net is told the pooled embedding of the second text encoder, and the six sizes (original, crop, target; height before width) that
    the pipeline makes by default. Sources: Podell et al. 2023, section 2.2; diffusers' StableDiffusionXLPipeline.
    """

    encoders = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
    may_lack = ("tokenizer", "text_encoder")

    @property
    def pooled_width(self) -> int:
        """Width of the pooled embedding that the U-Net takes."""
        config = self.pipeline.unet.config
        return int(
            config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        )

    def text_from(self, embeds: Tensor, others: Sequence[Tensor]) -> Text:
        size = [side * self.pipeline.vae_scale_factor for side in self.latent_shape[1:]]
        sizes = torch.tensor([[*size, 0, 0, *size]]).to(embeds).expand(len(embeds), -1)
        pooled = of_width(others[1], self.pooled_width)
        return replace(super().text_from(embeds, others), pooled=pooled, sizes=sizes)

    def unconditional(self) -> Text:
        text = self.encode([""])
        if not self.pipeline.config.force_zeros_for_empty_prompt or text.pooled is None:
            return text
        return replace(
            text, tokens=torch.zeros_like(text.tokens), pooled=torch.zeros_like(text.pooled)
        )

    def conditions(self, text: Text) -> dict[str, Any]:
        added = {"text_embeds": text.pooled, "time_ids": text.sizes}
        return super().conditions(text) | {"added_cond_kwargs": added}

    def text_of(self, conditions: Mapping[str, Any]) -> Text:
        added = conditions["added_cond_kwargs"]
        return replace(
            super().text_of(conditions), pooled=added["text_embeds"], sizes=added["time_ids"]
        )

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        vae = self.pipeline.vae
        narrow = _overflows(vae)
        vae.to(torch.float32 if narrow else vae.dtype)
        try:
            latents = super().encode_images(pixels)
        finally:
            vae.to(torch.float16 if narrow else vae.dtype)
        if (normal := _normal(vae, latents)) is None:
            return latents
        mean, std = normal
        return (latents - mean * vae.config.scaling_factor) / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        if (normal := _normal(vae, latents)) is not None:
            mean, std = normal
            latents = latents * std + mean * vae.config.scaling_factor
        if not _overflows(vae):
            return super().decode(latents)
        vae.to(torch.float32)
        try:
            return super().decode(latents)
        finally:
            vae.to(torch.float16)


def _normal(vae: Any, latents: Tensor) -> tuple[Tensor, ...] | None:
    """Mean and deviation (1, C, 1, 1) of an autoencoder that normalises its latents channel by channel; None for others."""
    known = [vae.config.get("latents_mean"), vae.config.get("latents_std")]
    if any(values is None for values in known):
        return None
    return tuple(torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in known)


def _overflows(vae: Any) -> bool:
    """Whether half precision is too narrow for the autoencoder as it is."""
    return vae.dtype == torch.float16 and bool(vae.config.get("force_upcast"))
