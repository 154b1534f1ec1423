"""Stable Diffusion 3 and 3.5: joint attention over CLIP and T5 embeddings, flow matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from findnemo.models._joint import JointAttention
from findnemo.models._text import Text, of_width
from findnemo.models.modules import a_row, unfused


class StableDiffusion3(JointAttention):
    """Neurons are the outputs of `attn.add_v_proj` in all transformer blocks.

    This includes the last block: its text output is unused, but its values do reach the image. The
    second attention of some blocks of 3.5-medium (`attn2`) is among image tokens only and has none.
    The text encoder T5 may be missing: its 256 positions are then zeros, as in the pipeline.
    Source: Esser et al. 2024.
    """

    encoders = (
        ("tokenizer", "text_encoder"),
        ("tokenizer_2", "text_encoder_2"),
        ("tokenizer_3", "text_encoder_3"),
    )
    may_lack = ("tokenizer_3", "text_encoder_3")
    encoding: Mapping[str, Any] = {
        "prompt_2": None,
        "prompt_3": None,
        "do_classifier_free_guidance": False,
    }

    def text_from(self, embeds: Tensor, others: Sequence[Tensor]) -> Text:
        """CLIP embeddings followed by T5 embeddings, (N, 77 + 256, D), and the pooled CLIP
        embeddings.
        """
        return Text(embeds, of_width(others[1], self.pooled_width))

    def output(self, latents: Tensor, timestep: float | Tensor, text: Text) -> Tensor:
        output: Tensor = self.denoiser(
            latents,
            timestep=a_row(timestep, latents, torch.float32),
            encoder_hidden_states=unfused(text.tokens),
            pooled_projections=text.pooled,
            return_dict=False,
        )[0]
        return output
