"""Predictions of a model with and without the prompt, along a guided sampling run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from findnemo.detection._score import require_images
from findnemo.errors import ModelError
from findnemo.images import ImageSettings
from findnemo.models import DiffusionModel, Model, Text
from findnemo.models.samplers import explicit


@dataclass(frozen=True)
class Step:
    """One denoising step of N images.

    `latents`: (N, C, H, W). `conditional`, `unconditional`: the network's own prediction (eps or v)
    with and without the prompt, (N, C, H, W), float32. `gain`: how much noise one unit of it means
    (`DiffusionModel.gain`).
    """

    latents: Tensor
    timestep: int
    conditional: Tensor
    unconditional: Tensor
    gain: Tensor

    @property
    def gap(self) -> Tensor:
        """eps(x_t, y) - eps(x_t, empty).

        The latents cancel, so it is never computed from two values of eps derived from v.
        """
        return self.gain * (self.conditional - self.unconditional)

    def guided(self, scale: float) -> Tensor:
        """Classifier-free guidance (Ho and Salimans 2022); equal for v and eps, since eps is linear
        in v.
        """
        return self.unconditional + scale * (self.conditional - self.unconditional)


def predict(model: Model, latents: Tensor, timestep: int, text: Text, empty: Text) -> Step:
    """Both predictions for latents (N, C, H, W); `text` and `empty`: one row each.

    Raises ModelError for flow matching.
    """
    network = diffusion(model)
    prompted, plain = (
        model.output(latents, timestep, t.expand(len(latents))).float() for t in (text, empty)
    )
    return Step(latents, timestep, prompted, plain, network.gain(timestep).to(latents.device))


def pure_noise(model: Model, prompt: str, images: int, seed: int) -> Tensor:
    """x_T of a prompt's first images, (images, C, H, W). Raises InputError for none."""
    require_images(images)
    return model.noise(prompt, range(images), seed)


def guided_run(model: Model, prompt: str, images: int, settings: ImageSettings) -> Iterator[Step]:
    """The steps of a guided DDIM run from x_T on.

    Steps are computed lazily. Raises ModelError for flow matching.
    """
    network = diffusion(model)
    scheduler = _ddim(network, settings.steps)
    timesteps = model.timesteps(settings.steps)
    text = model.encode([prompt])
    empty = model.unconditional()
    latents = pure_noise(model, prompt, images, settings.seed)
    for timestep in timesteps:
        step = predict(model, latents, timestep, text, empty)
        yield step
        moved = scheduler.step(
            step.guided(effective(model, settings.guidance)),
            timestep,
            latents.float(),
            return_dict=False,
        )[0]
        latents = moved.to(latents.dtype)


def effective(model: Model, guidance: float) -> float:
    """The guidance scale that a pipeline's call applies; 1 (none) if none is requested or if the
    network has guidance built in.
    """
    return guidance if guidance > 1 and not model.distilled else 1.0


def _ddim(model: DiffusionModel, steps: int) -> Any:
    """DDIM over the model's noise schedule, with the network's own prediction.

    If the schedule ends in pure noise (a = 0), no image follows from eps, but one does from v.
    """
    from diffusers import DDIMScheduler

    options = {
        "clip_sample": False,
        "thresholding": False,
        "beta_schedule": "linear",
        "trained_betas": None,
    }
    scheduler = DDIMScheduler.from_config(explicit(model.pipeline.scheduler.config), **options)
    scheduler.alphas_cumprod = model.alphas
    if not scheduler.config.set_alpha_to_one:
        scheduler.final_alpha_cumprod = model.alphas[0]
    scheduler.set_timesteps(steps)
    return scheduler


def diffusion(model: Model) -> DiffusionModel:
    """The model, if it has a noise schedule. Raises ModelError for flow matching."""
    if not isinstance(model, DiffusionModel):
        raise ModelError(
            f"a {type(model.pipeline).__name__} is trained by flow matching and has no"
            " variance-preserving noise schedule (alphas_cumprod), which this detector needs: use"
            " the detector ssim"
        )
    return model
