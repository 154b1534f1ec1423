"""Noise predictions with and without the prompt, along a guided sampling run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import InputError, ModelError
from findnemo.images import ImageSettings
from findnemo.models import FlowModel, Model
from findnemo.models._base import explicit


@dataclass(frozen=True)
class Step:
    """One denoising step of N images: `conditional` eps(x_t, y) and `unconditional` eps(x_t, empty), (N, C, H, W), float32."""

    timestep: int
    conditional: Tensor
    unconditional: Tensor

    @property
    def gap(self) -> Tensor:
        return self.conditional - self.unconditional

    def guided(self, scale: float) -> Tensor:
        """Classifier-free guidance (Ho and Salimans 2022)."""
        return self.unconditional + scale * self.gap


def predict(model: Model, latents: Tensor, timestep: int, text: Tensor, empty: Tensor) -> Step:
    """Both predictions for latents (N, C, H, W); `text` and `empty`: embeddings (1, tokens, D)."""
    both = [model.predict_noise(latents, timestep, t.expand(len(latents), -1, -1)).float() for t in (text, empty)]
    return Step(timestep, *both)


def guided_run(model: Model, prompt: str, images: int, settings: ImageSettings) -> Iterator[Step]:
    """The steps of a guided DDIM run from x_T on. Lazy: what is not asked for is not computed. Raises ModelError for flow matching."""
    _check_diffusion(model)
    if images < 1:
        raise InputError(f"a detector looks at 1 image or more, not {images}")
    scheduler, timesteps = _ddim(model, settings.steps), model.timesteps(settings.steps)
    text, empty = model.encode([prompt]), model.unconditional()
    latents = model.noise(prompt, range(images), settings.seed)
    for timestep in timesteps:
        step = predict(model, latents, timestep, text, empty)
        yield step
        moved = scheduler.step(step.guided(effective(model, settings.guidance)), timestep, latents.float(), return_dict=False)[0]
        latents = moved.to(latents.dtype)


def effective(model: Model, guidance: float) -> float:
    """The scale of guidance that a pipeline's call applies: 1, none, where none is asked for, or where the network has it built in."""
    return guidance if guidance > 1 and not model.distilled else 1.0


def _ddim(model: Model, steps: int) -> Any:
    """DDIM over the model's noise schedule, fed with eps whatever the model predicts."""
    from diffusers import DDIMScheduler

    options = {"prediction_type": "epsilon", "clip_sample": False, "thresholding": False}
    scheduler = DDIMScheduler.from_config(explicit(model.pipeline.scheduler.config), **options)
    scheduler.set_timesteps(steps)
    return scheduler


def alpha(model: Model, timestep: int) -> Tensor:
    """The cumulative signal share of a timestep, a scalar: x_t = sqrt(alpha) x_0 + sqrt(1 - alpha) eps. Raises ModelError for flow matching."""
    _check_diffusion(model)
    return model.pipeline.scheduler.alphas_cumprod[timestep].to(model.device, torch.float32)


def _check_diffusion(model: Model) -> None:
    if isinstance(model, FlowModel):
        raise ModelError(
            f"a {type(model.pipeline).__name__} is trained by flow matching and has no variance-preserving noise schedule "
            "(alphas_cumprod), which this detector needs: use the detector ssim"
        )
