"""PixArt-alpha and PixArt-Sigma: a diffusion transformer with cross-attention to T5 embeddings,
eps-prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from findnemo.errors import ModelError
from findnemo.models._diffusion import DiffusionModel
from findnemo.models._reading import cleaned, usual_length
from findnemo.models._text import Text
from findnemo.models.modules import a_row, unfused


class PixArt(DiffusionModel):
    """Neurons are the outputs of `attn2.to_v`, bias included, in all transformer blocks.

    All blocks work at one resolution, without a counterpart of a U-Net's down and mid blocks, so
    none is left out. Activations are means over all positions that the pipeline passes (120 for
    alpha, 300 for Sigma), padding included, as published. The cross-attention masks the padding.
    Sources: Chen et al. 2024 (PixArt-alpha), Chen et al. 2024 (PixArt-Sigma).
    """

    component = "transformer"
    names: Mapping[str, str | None] = {
        "value layers": r"transformer_blocks\..*attn2\.to_v",
        "parts": r"pos_embed|transformer_blocks\.\d+",
        "text projections": r"caption_projection|transformer_blocks\.\d+\.attn2\.to_[kv]",
    }
    encoding: Mapping[str, Any] = {"do_classifier_free_guidance": False, "clean_caption": True}
    predictions = ("epsilon",)
    where = " for PixArt"
    prepared = staticmethod(cleaned)

    def limit(self, part: str) -> int:
        return usual_length(self.pipeline)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.pipeline.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    def text_from(self, embeds: Tensor, others: Sequence[Tensor]) -> Text:
        """T5 embeddings of the captions, cleaned as in the pipeline, and the attention mask."""
        return Text(embeds, mask=others[0])

    def value_inputs(self, text: Text) -> dict[str, Tensor]:
        """The inputs of the value projections: embeddings after `caption_projection`, (N, tokens,
        width).
        """
        embeds = unfused(text.tokens)
        projection = self.pipeline.transformer.caption_projection
        return dict.fromkeys(
            self.value_layers, embeds if projection is None else projection(embeds)
        )

    def output(self, latents: Tensor, timestep: float | Tensor, text: Text) -> Tensor:
        output = self.denoiser(
            latents,
            encoder_hidden_states=unfused(text.tokens),
            encoder_attention_mask=text.mask,
            timestep=a_row(timestep, latents),
            added_cond_kwargs=self._size(latents),
            return_dict=False,
        )[0]
        return output[:, : latents.shape[1]]  # a learned variance may follow

    def _size(self, latents: Tensor) -> dict[str, Any]:
        """Resolution in pixels and aspect ratio of every latent, inputs of PixArt-alpha's 1024
        model.
        """
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[2:])
        rows = latents.new_tensor([height, width, height / width]).expand(len(latents), -1)
        return {"resolution": rows[:, :2], "aspect_ratio": rows[:, 2:]}

    def check_editable(self) -> None:
        super().check_editable()
        channels = self.pipeline.transformer.config.in_channels
        out = self.denoiser.out_channels
        if out not in (channels, 2 * channels):
            raise ModelError(
                f"the transformer takes {channels} channels and returns {out}: findnemo reads"
                " noise, alone or with a learned variance"
            )
