"""Samplers of finished images: that of the checkpoint, or one that is asked for; refused where
it would walk another path.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo.errors import InputError
from findnemo.images import ImageSettings, generate
from findnemo.models import SAMPLERS, Text, sampler_class, sampling
from findnemo.seeds import sample_seed

PROMPT = "a red fox"
SD14 = {  # the schedule of Stable Diffusion v1.4, without the settings that PNDM does not know
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "skip_prk_steps": True,
}


@pytest.fixture
def model():
    pipeline = tiny_pipeline()
    pipeline.scheduler = diffusers.PNDMScheduler(**SD14)
    return findnemo.load(pipeline)


def by_hand(model, steps: int, guidance: float) -> torch.Tensor:
    """DDIM as Song et al. 2020 have it, eta 0, in float64: the latents at its end."""
    alphas = torch.cumprod(
        1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0
    )
    seed = sample_seed(0, PROMPT, 0)
    x = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(seed)).double()
    stride = 1000 // steps
    for t in [k * stride + 1 for k in reversed(range(steps))]:
        text = Text.cat([model.encode([""]), model.encode([PROMPT])])
        empty, given = model.predict_noise(torch.cat([x, x]).float(), t, text).double()
        eps = empty + guidance * (given - empty)
        before = alphas[t - stride] if t >= stride else alphas[0]
        clean = (x - (1 - alphas[t]).sqrt() * eps) / alphas[t].sqrt()
        x = before.sqrt() * clean + (1 - before).sqrt() * eps
    return x.float()


@torch.no_grad()
def test_ddim_is_that_of_the_paper_whatever_the_checkpoint_brings(model):
    """Nothing is clipped to [-1, 1], as a DDIM that was made without a word on it
    would do: latents lie beyond.
    """
    settings = ImageSettings(steps=5, guidance=3.0, sampler="ddim")
    with sampling(model, settings.sampler):
        latents = model.sample(PROMPT, 1, [sample_seed(0, PROMPT, 0)], 5, 3.0)
    want = by_hand(model, 5, 3.0)
    assert want.abs().max() > 1.5
    assert torch.allclose(latents, want, atol=2e-4)
    (image,) = generate(model, PROMPT, [0], settings)
    (other,) = generate(model, PROMPT, [0], ImageSettings(steps=5, guidance=3.0))
    (decoded,) = (model.decode(want)[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)[None].numpy()
    assert np.abs(np.asarray(image) / 255 - decoded).max() < 0.01
    assert image.tobytes() != other.tobytes()  # PNDM walks another path
    assert isinstance(model.pipeline.scheduler, diffusers.PNDMScheduler)


def test_the_pipeline_gets_its_own_sampler_back_after_an_error(model):
    own = model.pipeline.scheduler
    seen = []

    def fail():
        seen.append(type(model.pipeline.scheduler))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), sampling(model, "Euler"):
        fail()
    assert seen == [diffusers.EulerDiscreteScheduler]
    assert model.pipeline.scheduler is own


@pytest.mark.parametrize(
    ("asked", "name"),
    [("ddim", "DDIM"), ("Euler ANCESTRAL", "Euler ancestral"), ("dpm++ 2m", "DPM++ 2M")],
)
def test_names_are_read_in_any_case(asked, name):
    assert ImageSettings(sampler=asked) == ImageSettings(sampler=name)
    assert ImageSettings.from_json(ImageSettings(sampler=asked).to_json()).sampler == name


def test_an_unknown_sampler_is_refused_by_name():
    with pytest.raises(InputError, match="sampler 'dimm' is not known: use one of DDIM, PNDM"):
        ImageSettings(sampler="dimm")


def test_what_does_not_fit_is_refused_by_name(model):
    flow = findnemo.models.samplers.fitting(diffusers.FlowMatchEulerDiscreteScheduler())
    distilled = findnemo.models.samplers.fitting(diffusers.LCMScheduler())
    assert flow == {"": "FlowMatchEulerDiscreteScheduler"}
    assert distilled == {"": "LCMScheduler"}
    with pytest.raises(
        InputError,
        match=r"'ddim' \(DDIMScheduler\) does not fit the model's FlowMatchEulerDiscreteScheduler",
    ):
        sampler_class(flow, "ddim")
    assert sampler_class(model.samplers, None) == "PNDMScheduler"
    assert sampler_class(model.samplers, "ddim") == "DDIMScheduler"


@pytest.mark.parametrize(
    "setting",
    [{"rescale_betas_zero_snr": True}, {"trained_betas": [0.001 * k for k in range(1, 1001)]}],
)
def test_a_sampler_that_would_drop_a_setting_of_the_schedule_does_not_fit(setting):
    own = diffusers.DDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", **setting
    )
    fits = findnemo.models.samplers.fitting(own)
    for name, kind in SAMPLERS.items():
        if name in fits:
            other = getattr(diffusers, kind).from_config({"clip_sample": False, **own.config})
            assert torch.allclose(other.alphas_cumprod[:-1], own.alphas_cumprod[:-1])
    assert "DDIM" in fits
    assert ("PNDM" in fits) == ("trained_betas" in setting)
