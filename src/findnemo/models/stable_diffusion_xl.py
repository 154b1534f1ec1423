"""Stable Diffusion XL: two text encoders, whose pooled embedding and the image's sizes go into the U-Net beside the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from findnemo.models.stable_diffusion import StableDiffusion

ADDED = (
    "text_embeds",
    "time_ids",
)  # `added_cond_kwargs` of the U-Net: the pooled embedding and the sizes


class StableDiffusionXL(StableDiffusion):
    """Neurons are the outputs of `attn2.to_v` of every transformer block in the down blocks and the mid block: 34 layers in SDXL base.

    Further rows of a prompt's embedding carry the pooled embedding and the six sizes (original, crop, target; height before width) that the
    pipeline makes by default. Sources: Podell et al. 2023, section 2.2; diffusers' StableDiffusionXLPipeline.
    """

    encoders = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
    may_lack = ("tokenizer", "text_encoder")

    @property
    def extras(self) -> dict[str, int]:
        numbers = self.pipeline.unet.config.addition_time_embed_dim
        pooled = self.pipeline.unet.config.projection_class_embeddings_input_dim - 6 * numbers
        return {"text_embeds": pooled, "time_ids": 6, **super().extras}

    @property
    def circumstances(self) -> int:  # type: ignore[override]
        return len(self.extras) - 1

    def beside(self, name: str, embeds: Tensor, others: Sequence[Tensor]) -> Tensor:
        if name == "text_embeds":
            return others[1]
        if name == "time_ids":
            size = [side * self.pipeline.vae_scale_factor for side in self.latent_shape[1:]]
            return torch.tensor([[*size, 0, 0, *size]]).to(embeds).expand(len(embeds), -1)
        return super().beside(name, embeds, others)

    def unconditional(self) -> Tensor:
        text = self.encode([""])
        if (
            self.pipeline.config.force_zeros_for_empty_prompt
        ):  # tokens and pooled embedding, not the sizes
            text[:, : text.shape[1] - self.further(text, last=self.circumstances)] = 0
        return text

    def conditions(self, text: Tensor) -> dict[str, Any]:
        conditions = super().conditions(text)
        return conditions | {"added_cond_kwargs": {name: conditions.pop(name) for name in ADDED}}

    def text_of(self, conditions: Mapping[str, Any]) -> Tensor:
        return super().text_of({**conditions, **conditions["added_cond_kwargs"]})

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
