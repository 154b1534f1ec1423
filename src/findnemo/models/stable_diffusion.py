"""Stable Diffusion 1.x and 2.x, Turbo and latent consistency models: a U-Net with cross-attention,
eps- or v-prediction.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import InputError, ModelError
from findnemo.models._diffusion import DiffusionModel
from findnemo.models._reading import converted
from findnemo.models._text import Text
from findnemo.models.modules import applied, exact


class StableDiffusion(DiffusionModel):
    """Neurons are the outputs of `attn2.to_v` in the down blocks and the mid block (Finding NeMo,
    section 3.1).

    A U-Net with distilled guidance (Luo et al. 2023, latent consistency models) gets a scale
    besides the prompt: the pipeline's default, because such a network was never trained without
    guidance.
    """

    changeable = True
    names: Mapping[str, str | None] = {
        "value layers": r".*attn2\.to_v",
        "paper": r"(down_blocks|mid_block)\..*",
        "parts": (
            r"conv_in|(down_blocks\.\d+|mid_block)\.(resnets|attentions|downsamplers)\.\d+"
            r"(\.transformer_blocks\.\d+\.attn1)?"
        ),
        "text projections": r".*attn2\.to_[kv]",
        "cross-attentions": r".*\.attn2",
    }
    encoding: Mapping[str, Any] = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    prepared = staticmethod(converted)
    # channels that the U-Net returns for each channel of a latent: eps, and a variance if it is
    # learned
    variances = 1

    def tokens(self, prompt: str) -> list[str]:
        tokenizer = self.pipeline.tokenizer
        text = self.prepared(prompt, tokenizer)
        ids = tokenizer(text, truncation=True, max_length=self.limit("tokenizer")).input_ids
        return [tokenizer.decode([i]) for i in ids]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @property
    def size(self) -> dict[str, int]:
        scale = getattr(self.pipeline, "vae_scale_factor", 1)  # DeepFloyd IF works on pixels
        _, height, width = self.latent_shape
        return {"height": height * scale, "width": width * scale}

    def value_inputs(self, text: Text) -> dict[str, Tensor]:
        return {name: self.projected(tokens) for name, tokens in super().value_inputs(text).items()}

    def projected(self, tokens: Tensor) -> Tensor:
        """Embeddings as the cross-attentions see them: some U-Nets (DeepFloyd IF, Kolors) project
        them first.
        """
        unet: Any = self.denoiser
        if unet.config.encoder_hid_dim_type != "text_proj":
            return tokens
        return applied(unet.encoder_hid_proj, tokens)

    def timesteps(self, steps: int) -> list[int]:
        scheduler = self.pipeline.scheduler
        # a subset of the steps of a distillation (LCM, TCD)
        own = scheduler.config.get("original_inference_steps")
        if own is None:
            return super().timesteps(steps)
        if steps > own:
            raise InputError(
                f"{type(scheduler).__name__} has a schedule of {own} steps, {steps} are too many:"
                f" use {own} or fewer"
            )
        scheduler = type(scheduler).from_config(scheduler.config)
        scheduler.set_timesteps(steps)
        return [int(t) for t in scheduler.timesteps]

    @property
    def distilled(self) -> bool:  # type: ignore[override]
        return self.pipeline.unet.config.time_cond_proj_dim is not None

    def text_from(self, embeds: Tensor, others: Sequence[Tensor]) -> Text:
        width = self.pipeline.unet.config.time_cond_proj_dim
        if width is None:
            return Text(embeds)
        scale = inspect.signature(type(self.pipeline).__call__).parameters["guidance_scale"].default
        scales = torch.tensor(scale - 1).repeat(len(embeds))
        guidance = self.pipeline.get_guidance_scale_embedding(scales, width)
        return Text(embeds, guidance=guidance.to(embeds))

    def conditions(self, text: Text) -> dict[str, Any]:
        self._check_prompt_suffices()
        guidance = {} if text.guidance is None else {"timestep_cond": text.guidance}
        return {"encoder_hidden_states": text.tokens, **guidance}

    def text_of(self, conditions: Mapping[str, Any]) -> Text:
        return Text(conditions["encoder_hidden_states"], guidance=conditions.get("timestep_cond"))

    def output(self, latents: Tensor, timestep: float | Tensor, text: Text) -> Tensor:
        prompts = self.conditions(text)
        output: Tensor = self.denoiser(latents, timestep, **prompts, return_dict=False)[0]
        return output[:, : latents.shape[1]]

    def regression(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Text
    ) -> tuple[Tensor, Tensor]:
        x = exact(clean)
        eps = exact(noise)
        a = self.alphas.to(x)[timesteps][:, None, None, None]
        noisy = a.sqrt() * x + (1 - a).sqrt() * eps
        target = eps if self.prediction == "epsilon" else a.sqrt() * eps - (1 - a).sqrt() * x
        return self.output(noisy.to(clean.dtype), timesteps, text), target

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        self._check_prompt_suffices()
        return super().sample(*args, **kwargs)

    def _check_prompt_suffices(self) -> None:
        if self.pipeline.unet.config.encoder_hid_dim_type == "ip_image_proj":
            raise ModelError(
                "the pipeline has an IP-Adapter loaded, whose U-Net needs an image with every"
                " prompt: call pipeline.unload_ip_adapter() first (the neurons that are found work"
                " with it too, and deactivate works around its calls)"
            )

    def check_editable(self) -> None:
        super().check_editable()
        config = self.pipeline.unet.config
        if config.out_channels != self.variances * config.in_channels:
            raise ModelError(
                f"the U-Net takes {config.in_channels} channels and returns {config.out_channels}:"
                " inpainting and editing variants are not supported"
            )
