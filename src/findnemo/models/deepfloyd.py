"""DeepFloyd IF, stage I: a U-Net over pixels of 64 x 64, conditioned by a T5 encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from findnemo.models._reading import lowered
from findnemo.models._text import Text
from findnemo.models.stable_diffusion import StableDiffusion

LONGEST = 77  # tokens with which IF was trained, though T5 reads more


class DeepFloyd(StableDiffusion):
    """Neurons are the outputs of `add_v_proj` in the attention of the down blocks and the mid
    block.

    In an attention of IF, image and prompt give keys and values side by side: `to_v` projects the
    positions of the image, `add_v_proj`, which has a bias, those of the prompt. The U-Net returns
    eps and a learned variance. "Latents" are pixels in [-1, 1], which nothing decodes; samples are
    taken before the safety checker and the watermark. Captions are lowered but not cleaned
    (`clean_caption`).
    """

    names: Mapping[str, str | None] = {
        **StableDiffusion.names,
        "value layers": r".*\.add_v_proj",
        "text projections": r".*\.add_[kv]_proj",
        # prompt and image share one attention: there are no probabilities over the prompt alone
        "cross-attentions": None,
    }
    variances = 2
    starts = 0
    prepared = staticmethod(lowered)
    decodes = False
    finished: Mapping[str, Any] = {"output_type": "pt", "clean_caption": False}

    def value_inputs(self, text: Text) -> dict[str, Tensor]:
        """The embeddings after the U-Net's own projection and the normalization of each
        attention.
        """
        unet: Any = self.denoiser
        projected = self.projected(text.tokens)
        inputs = {}
        for name in self.value_layers:
            attention = unet.get_submodule(name.rpartition(".")[0])
            normalized = attention.norm_cross
            inputs[name] = (
                attention.norm_encoder_hidden_states(projected) if normalized else projected
            )
        return inputs

    def limit(self, part: str) -> int:
        return LONGEST

    def decode(self, latents: Tensor) -> Tensor:
        return latents.float()

    def encode_images(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device, self.dtype)
