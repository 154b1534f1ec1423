"""FLUX.1: joint attention over T5 embeddings, then single-stream blocks; flow matching, possibly
with distilled guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from findnemo.models._joint import JointAttention
from findnemo.models._reading import converted
from findnemo.models._text import Text, of_width
from findnemo.models.modules import a_row, unfused

# the embedded guidance scale that means no guidance in a distilled model
UNGUIDED = 1.0


class Flux(JointAttention):
    """Neurons are the outputs of `attn.add_v_proj` in the double blocks.

    The single blocks after them are excluded: their `attn.to_v` carries image and text tokens
    alike, so their neurons cannot be switched off for the text alone. Latents are (C, H, W) as
    elsewhere; only the transformer sees them packed into tokens of 2 x 2. The dev model is
    distilled: its guidance scale is an input, and no pass is without the prompt. Images get the
    requested scale; noise predictions are unguided, which is a scale of 1.
    """

    distilled = True
    packing = 4
    encoders = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
    prepared = staticmethod(converted)

    def text_from(self, embeds: Tensor, others: Sequence[Tensor]) -> Text:
        """T5 embeddings, (N, 512, D), and the pooled CLIP embedding."""
        return Text(embeds, of_width(others[0], self.pooled_width))

    def output(self, latents: Tensor, timestep: float | Tensor, text: Text) -> Tensor:
        pipeline = self.pipeline
        device = latents.device
        dtype = latents.dtype
        count, _, height, width = latents.shape
        unguided = torch.full((count,), UNGUIDED, device=device)
        output = self.denoiser(
            pipeline._pack_latents(latents.contiguous(), *latents.shape),
            timestep=a_row(timestep, latents, dtype) / 1000,
            guidance=unguided if pipeline.transformer.config.guidance_embeds else None,
            pooled_projections=text.pooled,
            encoder_hidden_states=unfused(text.tokens),
            txt_ids=torch.zeros(text.tokens.shape[1], 3, device=device, dtype=dtype),
            img_ids=pipeline._prepare_latent_image_ids(
                count, height // 2, width // 2, device, dtype
            ),
            return_dict=False,
        )[0]
        return self._unpacked(output, height, width)

    def sample(
        self, prompts: str | list[str], each: int, seeds: Sequence[int], steps: int, guidance: float
    ) -> Tensor:
        """Finished latents, (N, C, H, W).

        `guidance`: the embedded scale; a model without one ignores it.
        """
        tokens = super().sample(prompts, each, seeds, steps, guidance)
        return self._unpacked(tokens, *self.latent_shape[1:])

    def _unpacked(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(N, H / 2 * W / 2, 4 C) -> (N, C, H, W)."""
        scale = self.pipeline.vae_scale_factor
        sides = height * scale, width * scale
        latents: Tensor = self.pipeline._unpack_latents(tokens, *sides, scale)
        return latents

    def spacing(self, config: Any, steps: int) -> dict[str, Any]:
        """The pipeline itself gives the sigmas, from 1 to 1 / steps."""
        import numpy as np

        return super().spacing(config, steps) | {"sigmas": np.linspace(1.0, 1 / steps, steps)}
