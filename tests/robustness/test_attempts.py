"""Every attempt on a tiny model; image to image against diffusers' own pipeline;
the schedule of samplers.
"""

import diffusers
import numpy as np
import pytest
import torch
from _tiny import SMALL, tiny_pipeline
from PIL import Image

import findnemo
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.models import SAMPLERS, sampling
from findnemo.neurons import NeuronSet
from findnemo.robustness import ATTEMPTS, image_to_image, subject
from findnemo.seeds import sample_seed

PROMPT = "The secret of the old clock, a big picture"
SETTINGS = ImageSettings(steps=4, guidance=2.0)


@pytest.fixture(scope="module")
def model():
    pipeline = tiny_pipeline(**SMALL)
    with torch.no_grad():
        pipeline.unet.conv_out.weight *= 30
    return findnemo.load(pipeline)


@pytest.fixture(scope="module")
def told(model):
    noisy = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return subject(model, PROMPT, SETTINGS, Image.fromarray(noisy))


@pytest.mark.first(8)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_every_attempt_gives_the_same_images_each_time(model, told, name):
    made, again = (
        [np.asarray(image, int) for image in ATTEMPTS[name](model, told, samples, SETTINGS)]
        for samples in ((7, 8), (8,))
    )
    assert np.abs(made[1] - again[0]).max() <= 1  # an image depends on its own sample number only
    assert np.abs(made[0] - made[1]).max() > 10
    assert made[0].shape == (32, 32, 3)


@pytest.mark.parametrize("strength", [0.5, 0.75])
def test_image_to_image_is_that_of_diffusers(model, told, strength):
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(
        **model.pipeline.components, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    settings = ImageSettings(steps=8, guidance=2.0)
    made = image_to_image(model, told, [3, 4], settings, strength)
    for sample, image in zip((3, 4), made, strict=True):
        generator = torch.Generator().manual_seed(sample_seed(0, PROMPT, sample))
        (want,) = pipeline(
            PROMPT,
            image=told.picture,
            strength=strength,
            num_inference_steps=8,
            guidance_scale=2.0,
            generator=[generator],
        ).images
        assert np.abs(np.asarray(image, int) - np.asarray(want, int)).max() <= 1


def test_image_to_image_is_of_the_edited_model_and_of_the_picture(model, told):
    plain = image_to_image(model, told, [3], SETTINGS, 0.5)[0].tobytes()
    with findnemo.deactivate(model, NeuronSet({name: range(8) for name in model.value_layers})):
        assert image_to_image(model, told, [3], SETTINGS, 0.5)[0].tobytes() != plain
    other = subject(model, PROMPT, SETTINGS, Image.new("RGB", (32, 32)))
    assert image_to_image(model, other, [3], SETTINGS, 0.5)[0].tobytes() != plain


@pytest.mark.parametrize(("name", "kind"), SAMPLERS.items())
def test_a_sampler_is_that_of_diffusers_on_the_model_s_own_schedule(model, name, kind):
    own = model.pipeline.scheduler
    with sampling(model, name):
        used = model.pipeline.scheduler
        assert type(used) is getattr(diffusers, kind)
        assert torch.allclose(used.alphas_cumprod, own.alphas_cumprod)
        assert used.config.prediction_type == own.config.prediction_type
    assert model.pipeline.scheduler is own


def test_a_sampler_that_is_not_known_is_named(model):
    with (
        pytest.raises(InputError, match="sampler 'Magic' is not known: use one of DDIM"),
        sampling(model, "Magic"),
    ):
        pass
