"""Stable Diffusion and its distillations: sizes of latents, guidance as an input, what the U-Net
is told of a prompt.
"""

from __future__ import annotations

import pytest
import torch
from _odd_pipelines import configured
from _passes import call, passes
from _tiny import tiny_pipeline
from _tiny_unets import tiny_if, tiny_lcm, tiny_sdxl
from diffusers import LCMScheduler, TCDScheduler

import findnemo
from findnemo import ImageSettings, Settings
from findnemo.errors import InputError, ModelError
from findnemo.models import StableDiffusion


def test_a_distilled_network_is_told_the_pipelines_default_guidance():
    model = findnemo.load(tiny_lcm())
    assert isinstance(model, StableDiffusion)
    (_, _, kwargs, _), *_ = passes(
        model, lambda: model.pipeline("a cat", num_inference_steps=1, output_type="latent")
    )
    torch.testing.assert_close(model.text_of(kwargs).tensors, model.encode(["a cat"]).tensors)
    (_, _, other, _), *_ = passes(
        model, lambda: call(model.pipeline, ["a cat"], 1, guidance=2.0, steps=1)
    )
    assert not torch.allclose(other["timestep_cond"], kwargs["timestep_cond"])


@pytest.mark.parametrize("scheduler", [LCMScheduler, TCDScheduler])
def test_a_distillations_schedule_has_so_many_steps_and_no_more(scheduler):
    model = findnemo.load(tiny_lcm())
    model.pipeline.scheduler = scheduler.from_config(model.pipeline.scheduler.config)
    assert model.timesteps(4)[0] == 999
    with pytest.raises(
        InputError, match=f"{scheduler.__name__} has a schedule of 50 steps, 51 are too many"
    ):
        model.timesteps(51)


def test_noise_differences_with_guidance_are_refused_where_guidance_is_built_in():
    with pytest.raises(ModelError, match="has guidance built in"):
        findnemo.score(
            findnemo.load(tiny_lcm()), "a cat", settings=Settings(samples=2, guidance=7.0)
        )


def test_an_inpainting_unet_is_refused():
    with pytest.raises(ModelError, match="takes 9 channels and returns 4: inpainting"):
        findnemo.load(tiny_pipeline(in_channels=9))


def test_latents_have_the_unets_native_size(tiny):
    assert tiny.latent_shape == (4, 16, 16)
    assert findnemo.load(tiny_pipeline(sample_size=(16, 24))).latent_shape == (4, 16, 24)


@pytest.mark.first(1)
@pytest.mark.parametrize("size", [[16, 24], (24, 16)])
@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl, tiny_lcm, tiny_if])
def test_latents_may_be_wider_than_high(make, size):
    model = findnemo.load(configured(make, "unet", sample_size=size)())
    assert model.latent_shape[1:] == tuple(size)
    (image,) = findnemo.generate(model, "a cat", [0], ImageSettings(2, 2.0))
    scale = getattr(model.pipeline, "vae_scale_factor", 1)
    assert image.size == (size[1] * scale, size[0] * scale)


def test_a_guidance_input_may_be_wider_than_the_embeddings():
    model = findnemo.load(tiny_pipeline(time_cond_proj_dim=256))
    scale = torch.tensor([7.5 - 1])
    expected = model.pipeline.get_guidance_scale_embedding(scale, 256)
    torch.testing.assert_close(model.conditions(model.encode(["a"]))["timestep_cond"], expected)


def test_statistics_see_embeddings_as_the_u_net_projects_them():
    model = findnemo.load(tiny_pipeline(encoder_hid_dim=32, encoder_hid_dim_type="text_proj"))
    text = model.encode(["a cat"])
    seen = {}
    handles = [
        m.register_forward_pre_hook(lambda m, a, n=n: seen.update({n: a[0]}))
        for n, m in model.value_layers.items()
    ]
    with torch.no_grad():
        model.predict_noise(model.noise("a cat", [0]), 981, text)
    for handle in handles:
        handle.remove()
    for name, found in model.value_inputs(text).items():
        torch.testing.assert_close(found, seen[name])
    assert not torch.allclose(next(iter(seen.values())), text.tokens)
