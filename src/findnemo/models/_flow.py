"""Flow matching: a substitute for the noise prediction of networks that predict a velocity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from findnemo.models._base import Model
from findnemo.models.modules import exact


class FlowModel(Model):
    """A model trained by flow matching on straight paths (rectified flow, Liu et al. 2023, Esser et
    al. 2024).

    Derivation. Noisy latents are x_s = (1 - s) x_0 + s eps, and the network predicts v = eps - x_0.
    So it knows the image as x0_hat = x_s - s v. Finding NeMo compares eps_hat - x_T. For a
    variance-preserving model, x_t = sqrt(a) x_0 + sqrt(1 - a) eps, hence

        eps_hat - x_t = -sqrt(a) x0_hat + (1 - sqrt(1 - a)) eps_hat,

    with factors of .07 and .0025 at the noisiest step of Stable Diffusion. Up to that small
    remainder of the noise, and up to a positive factor, which min-max scaling removes, the noise
    difference is -x0_hat. A flow starts at s = 1 from the noise itself. There the exact noise,
    eps_hat = x_s + (1 - s) v, is x_T whatever the network says, and its difference is zero. The
    counterpart is the difference that equals -x0_hat. So `predict_noise` gives s v, because s v -
    x_s = -x0_hat at every s; at s = 1 it is v itself. One pass a latent.

    An adapter's `output` is the velocity v(x_s, s, y), at a timestep of s * 1000, without guidance.
    """

    component = "transformer"

    @property
    def shift(self) -> float:  # type: ignore[override]
        return float(getattr(self.pipeline.vae.config, "shift_factor", None) or 0.0)

    schedule = (
        "num_train_timesteps",
        "shift",
        "use_dynamic_shifting",
        "base_shift",
        "max_shift",
        "base_image_seq_len",
        "max_image_seq_len",
        "shift_terminal",
        "time_shift_type",
        "invert_sigmas",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
    )

    def as_noise(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        """s v, (N, C, H, W): x_s without the predicted image, x_s - x0_hat. The class says why."""
        share = timestep / self.pipeline.scheduler.config.num_train_timesteps
        return output if share == 1 else share * exact(output)

    def image(self, output: Tensor, latents: Tensor, timestep: float) -> Tensor:
        """x0_hat = x_s - s v, float32."""
        return exact(latents) - self.mixture(timestep)[1] * exact(output)

    def mixture(self, timestep: float) -> tuple[Tensor, Tensor]:
        """Shares of image and noise in x_s: 1 - s and s, float32 scalars."""
        share = torch.tensor(timestep / self.pipeline.scheduler.config.num_train_timesteps)
        return 1 - share, share

    def timesteps(self, steps: int) -> list[float]:  # type: ignore[override]  # not whole numbers: they are shifted
        """Timesteps s * 1000 of a schedule with this many steps, shifted as in the pipeline; the
        first is 1000.
        """
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(**self.spacing(scheduler.config, steps))
        shifted: list[float] = scheduler.timesteps.tolist()
        return shifted

    def spacing(self, config: Any, steps: int) -> dict[str, Any]:
        """Arguments with which the pipeline sets its scheduler's timesteps, for a schedule of this
        configuration.
        """
        shift = {"mu": self.mu(config)} if config.use_dynamic_shifting else {}
        return {"num_inference_steps": steps, **shift}

    def mu(self, config: Any) -> float:
        """Shift of the schedule by the number of image tokens, patches of 2 x 2 latents (Esser
        et al. 2024, section 5.3.2).
        """
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        _, height, width = self.latent_shape
        lengths = config.base_image_seq_len, config.max_image_seq_len
        shifts = config.base_shift, config.max_shift
        return float(calculate_shift((height // 2) * (width // 2), *lengths, *shifts))
