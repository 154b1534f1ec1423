"""Noise diffusion: a schedule of signal and noise, and a network that predicts eps or v."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from findnemo.errors import ModelError
from findnemo.models._base import Model
from findnemo.models.modules import exact

STAND_IN = 2.0**-12  # square root of the value by which some samplers replace an alpha of zero
# share of signal at which Stable Diffusion's schedule ends, .00466 at its last timestep
LEAST = 0.0046


class DiffusionModel(Model):
    """A model trained on x_t = sqrt(a) x_0 + sqrt(1 - a) eps (variance preserving) to predict eps
    or v = sqrt(a) eps - sqrt(1 - a) x_0.

    Derivation. From v follows eps = sqrt(1 - a) x_t + sqrt(a) v (Salimans and Ho 2022), hence the
    noise difference of Finding NeMo

        eps - x_t = sqrt(a) (v - c x_t),  c = (1 - sqrt(1 - a)) / sqrt(a) = sqrt(a) / (1 + sqrt(1 - a)).

    The bracket stays well defined as a goes to 0, where it is v = -x0_hat, what the network knows
    about the image. Its factor does not. With zero terminal SNR (Lin et al. 2024) a is 0 at the
    first step, so the exact noise is x_t whatever the network says, and the difference is zero for
    every prompt. Min-max scaling removes a positive factor. So `predict_noise` gives x_t +
    max(sqrt(a), .068) (v - c x_t). That is eps itself for every schedule with at least as much
    signal as Stable Diffusion's. With less signal it is a noise that differs from x_t as much as at
    the end of that schedule. All is computed in float32, even for a network in half precision:
    rounded to half, eps loses most of its difference from x_t.
    """

    def as_noise(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        if self.prediction == "epsilon":
            return output
        output = exact(output)
        x = exact(latents)
        a = self.alpha(timestep).to(x.dtype)  # scalars stay on their device: a copy would block
        share = a.sqrt() / (1 + (1 - a).sqrt())
        return x + self.gain(timestep).to(x.dtype) * (output - share * x)

    def image(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        """x0_hat, (N, C, H, W), float32: the clean latents that follow from the network's
        prediction at x_t.
        """
        output = exact(output)
        x = exact(latents)
        a = self.alpha(timestep).to(x.dtype)
        if self.prediction == "epsilon":
            return (x - (1 - a).sqrt() * output) / a.sqrt()
        return a.sqrt() * x - (1 - a).sqrt() * output

    def mixture(self, timestep: float) -> tuple[Tensor, Tensor]:
        """Shares of image and noise in x_t: sqrt(a) and sqrt(1 - a), float32 scalars."""
        a = self.alpha(timestep)
        return a.sqrt(), (1 - a).sqrt()

    def gain(self, timestep: float) -> Tensor:
        """How much noise in `predict_noise` one unit of the network's prediction means, a scalar: 1
        for eps, max(sqrt(a), .068) for v.
        """
        if self.prediction == "epsilon":
            return torch.ones(())
        return self.alpha(timestep).clamp(min=LEAST).sqrt()

    def alpha(self, timestep: float) -> Tensor:
        """a, the cumulative share of signal at a timestep, a float32 scalar."""
        return self.alphas[int(timestep)]

    @property
    def alphas(self) -> Tensor:
        """a of every training timestep, (T,), float32, with zero at the end if the configuration
        says so.

        Some samplers ignore `rescale_betas_zero_snr` (PNDM, Heun), and some put 2^-24 in place of
        zero (Euler, DPM++, UniPC). But the network was trained on one schedule, whichever sampler
        is used.
        """
        scheduler = self.pipeline.scheduler
        root = scheduler.alphas_cumprod.double().sqrt()
        if scheduler.config.get("rescale_betas_zero_snr"):
            last = root[-1] if root[-1] > STAND_IN else root.new_zeros(())
            # Lin et al. 2024, Algorithm 1; changes nothing if already applied
            root = (root - last) * root[0] / (root[0] - last)
            root[-1] = 0
        return root.square().float()

    @property
    def prediction(self) -> str:
        """The network's prediction type: "epsilon" or "v_prediction". Raises ModelError for any
        other.
        """
        config = self.pipeline.scheduler.config
        kind = "edm" if "sigma_data" in config else str(config.get("prediction_type"))
        if kind not in self.predictions:
            raise ModelError(
                f"prediction type {kind!r} is not supported{self.where}: findnemo reads"
                f" {' and '.join(self.predictions)}"
            )
        return kind

    predictions: tuple[str, ...] = ("epsilon", "v_prediction")
    where = ""  # the pipelines to which this applies

    def check_ready(self) -> None:
        super().check_ready()
        scheduler: Any = self.pipeline.scheduler
        if self.prediction and getattr(scheduler, "alphas_cumprod", None) is None:
            raise ModelError(
                f"a {type(scheduler).__name__} has no noise schedule (alphas_cumprod) for a"
                f" {type(self.pipeline).__name__}: give the pipeline the scheduler that its model"
                " was trained with, such as DDIMScheduler.from_pretrained(MODEL,"
                " subfolder='scheduler')"
            )
