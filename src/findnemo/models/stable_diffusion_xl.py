"""Stable Diffusion XL: two text encoders; their pooled embedding and the image's sizes enter the
U-Net besides the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from findnemo.models._text import Text, of_width
from findnemo.models.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Neurons are the outputs of `attn2.to_v` of every transformer block in the down blocks and the
    mid block: 34 layers in SDXL base.

    The U-Net also gets the pooled embedding of the second text encoder, and the six sizes
    (original, crop, target; height before width) that the pipeline uses by default. Sources: Podell
    et al. 2023, section 2.2; diffusers' StableDiffusionXLPipeline.
    """

    encoders = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
    may_lack = ("tokenizer", "text_encoder")

    @property
    def pooled_width(self) -> int:
        """Width of the pooled embedding that the U-Net takes."""
        config = self.pipeline.unet.config
        sizes = 6 * config.addition_time_embed_dim
        return int(config.projection_class_embeddings_input_dim - sizes)

    def text_from(self, embeds: Tensor, others: Sequence[Tensor]) -> Text:
        size = [side * self.pipeline.vae_scale_factor for side in self.latent_shape[1:]]
        sizes = torch.tensor([[*size, 0, 0, *size]]).to(embeds).expand(len(embeds), -1)
        pooled = of_width(others[1], self.pooled_width)
        return replace(super().text_from(embeds, others), pooled=pooled, sizes=sizes)

    def unconditional(self) -> Text:
        text = self.encode([""])
        if not self.pipeline.config.force_zeros_for_empty_prompt or text.pooled is None:
            return text
        zeros = torch.zeros_like
        return replace(text, tokens=zeros(text.tokens), pooled=zeros(text.pooled))

    def conditions(self, text: Text) -> dict[str, Any]:
        added = {"text_embeds": text.pooled, "time_ids": text.sizes}
        return super().conditions(text) | {"added_cond_kwargs": added}

    def text_of(self, conditions: Mapping[str, Any]) -> Text:
        text = super().text_of(conditions)
        added = conditions["added_cond_kwargs"]
        return replace(text, pooled=added["text_embeds"], sizes=added["time_ids"])

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        vae = self.pipeline.vae
        with _wide(vae):
            latents = super().encode_images(pixels)
        mean, std = _normal(vae, latents)
        return latents if mean is None else (latents - mean * vae.config.scaling_factor) / std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        mean, std = _normal(vae, latents)
        if mean is not None:
            latents = latents * std + mean * vae.config.scaling_factor
        with _wide(vae):
            return super().decode(latents)


def _normal(vae: Any, latents: Tensor) -> Any:
    """Mean and standard deviation, both (1, C, 1, 1), of an autoencoder that normalizes its latents
    by channel; (None, None) for others.
    """
    values = [vae.config.get("latents_mean"), vae.config.get("latents_std")]
    if None in values:
        return None, None
    return [torch.tensor(one).view(1, -1, 1, 1).to(latents) for one in values]


@contextmanager
def _wide(vae: Any) -> Iterator[None]:
    """While the context lasts, keep an autoencoder in float32 if half precision is too narrow for
    it.
    """
    if vae.dtype != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(torch.float16)
