"""Stable Diffusion 1.x and 2.x: a U-Net with cross-attention, eps- or v-prediction."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from findnemo.errors import ModelError
from findnemo.models._base import Model

PART = re.compile(
    r"conv_in|(down_blocks\.\d+|mid_block)\.(resnets|attentions|downsamplers)\.\d+(\.transformer_blocks\.\d+\.attn1)?"
)
FORWARD = ("down_blocks", "mid_block", "up_blocks")  # diffusers registers the mid block last


class StableDiffusion(Model):
    """Neurons are the outputs of `attn2.to_v` in the down blocks and the mid block (Finding NeMo, section 3.1)."""

    def is_value_layer(self, name: str, module: nn.Module) -> bool:
        return name.endswith("attn2.to_v") and name.startswith(("down_blocks.", "mid_block."))

    @property
    def parts(self) -> dict[str, nn.Module]:
        return self.find("parts", lambda name, module: PART.fullmatch(name) is not None)

    @property
    def text_projections(self) -> dict[str, nn.Module]:
        return self.find("text projections", lambda name, module: name.endswith(("attn2.to_k", "attn2.to_v")))

    @property
    def cross_attentions(self) -> dict[str, nn.Module]:
        found = self.find("cross-attentions", lambda name, module: name.endswith(".attn2"))
        return dict(sorted(found.items(), key=lambda item: FORWARD.index(item[0].split(".")[0])))

    def tokens(self, prompt: str) -> list[str]:
        tokenizer = self.pipeline.tokenizer
        converted = self.pipeline.maybe_convert_prompt(prompt, tokenizer)  # as `encode_prompt` does for textual inversions
        ids = tokenizer(converted, truncation=True, max_length=tokenizer.model_max_length).input_ids
        return [tokenizer.decode([i]) for i in ids]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        embeds, _ = self.pipeline.encode_prompt(list(prompts), self.device, 1, do_classifier_free_guidance=False)
        return embeds

    def predict_noise(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        output = self.denoiser(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]
        config = self.pipeline.scheduler.config
        if config.prediction_type == "epsilon":
            return output
        if config.prediction_type == "v_prediction":  # eps = sqrt(1 - a) x_t + sqrt(a) v (Salimans and Ho 2022)
            alpha = self.pipeline.scheduler.alphas_cumprod[timestep].to(latents.device, torch.float32)
            return ((1 - alpha).sqrt() * latents + alpha.sqrt() * output).to(output.dtype)
        raise ModelError(f"prediction type {config.prediction_type!r} is not supported: findnemo reads epsilon and v_prediction")

    def check_editable(self) -> None:
        super().check_editable()
        channels, out = self.pipeline.unet.config.in_channels, self.pipeline.unet.config.out_channels
        if channels != out:
            raise ModelError(
                f"the U-Net takes {channels} channels and returns {out}: inpainting and editing variants are not supported"
            )
