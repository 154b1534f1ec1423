"""Flow matching: a velocity gives the noise difference that a diffusion would give, and the
timesteps are those of the pipeline.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from _passes import PROMPT
from _tiny_transformers import tiny_flux, tiny_sd3
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

import findnemo
from findnemo.models import FlowModel, Text
from findnemo.passes.deltas import Probe
from findnemo.scores import minmax
from findnemo.settings import Settings


class Toy(FlowModel):
    """A flow whose network knows the image: v = (x_s - x_0) / s."""

    def __init__(self, image: Tensor):
        self.image = image
        self.pipeline = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler())

    def output(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        return (latents - self.image) / (timestep / 1000)


def toy_images(count: int = 3) -> Tensor:
    """Smooth images, one a latent, (N, 1, 16, 16)."""
    coarse = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (16, 16), mode="bilinear").double()


@pytest.mark.parametrize("a", [0.0047, 1e-4, 1e-6])  # the first is Stable Diffusion's last timestep
def test_noise_differences_of_a_flow_are_those_of_a_diffusion(a):
    """Both networks know the same x_0; what is left between the scaled
    differences vanishes with sqrt(a).
    """
    x0 = toy_images()
    latents = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    diffusion = (latents - a**0.5 * x0) / (1 - a) ** 0.5 - latents
    flow = Toy(x0).predict_noise(latents, 1000.0, Text(torch.empty(0))) - latents
    gap = (minmax(flow) - minmax(diffusion)).abs().max()
    assert gap < 2 * a**0.5
    torch.testing.assert_close(minmax(flow), minmax(-x0))


@pytest.mark.parametrize("timestep", [1000.0, 612.5, 30.0])
def test_what_a_flow_gives_as_noise_leaves_the_image_at_every_step(timestep):
    x0 = toy_images()
    s = timestep / 1000
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    latents = (1 - s) * x0 + s * eps
    torch.testing.assert_close(Toy(x0).output(latents, timestep, Text(torch.empty(0))), eps - x0)
    torch.testing.assert_close(
        Toy(x0).predict_noise(latents, timestep, Text(torch.empty(0))) - latents, -x0
    )


@pytest.mark.parametrize("steps", [4, 7])
@pytest.mark.parametrize(
    "make",
    [
        tiny_sd3,
        tiny_flux,
        lambda: tiny_flux(guidance_embeds=False),
        lambda: tiny_sd3(use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=128),
    ],
    ids=["sd3", "flux-dev", "flux-schnell", "dynamic"],
)
def test_timesteps_of_a_flow_are_the_pipelines(make, steps):
    model = findnemo.load(make())
    before = dict(vars(model.pipeline.scheduler))
    mine = model.timesteps(steps)
    assert vars(model.pipeline.scheduler).keys() == before.keys()
    assert model.pipeline.scheduler.timesteps is before["timesteps"]
    model.pipeline(PROMPT, num_inference_steps=steps, output_type="latent", guidance_scale=1.0)
    assert mine == pytest.approx(model.pipeline.scheduler.timesteps.tolist())
    assert mine[0] == 1000
    assert mine == sorted(mine, reverse=True)


def test_a_flow_goes_one_pass_a_latent_and_its_delta_is_the_image_negated():
    model = findnemo.load(tiny_sd3())
    passes = []
    handle = model.denoiser.register_forward_hook(
        lambda m, args, out: passes.append((args[0], out[0]))
    )
    deltas = Probe(model, PROMPT, Settings(samples=3)).deltas()
    handle.remove()
    ((latents, v),) = passes
    assert len(latents) == 3
    torch.testing.assert_close(deltas, minmax(-(latents - v)))


def test_the_fingerprint_of_a_flow_tells_schedules_apart():
    fingerprints = {
        findnemo.load(tiny_sd3(**options)).fingerprint
        for options in ({}, {"shift": 2.0}, {"use_dynamic_shifting": True})
    }
    assert len(fingerprints) == 3
