"""Every attempt on a tiny model; image to image against diffusers' own pipeline;
the schedule of samplers.
"""

import diffusers
import numpy as np
import pytest
import torch
from _tiny import SMALL, tiny_pipeline
from PIL import Image, ImageOps

import findnemo
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.models import SAMPLERS, sampling
from findnemo.neurons import NeuronSet
from findnemo.robustness import ATTEMPTS, AttackedCaption, image_to_image, subject
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


@pytest.mark.parametrize(
    "name",
    ["steps: double", "sampler: DPM++ 2M", "guidance: 15", "words: capitals", "random tokens: 4"],
)
def test_an_attempt_gives_other_images_than_the_plain_caption(model, told, name):
    made, plain = (ATTEMPTS[n](model, told, [7, 8], SETTINGS) for n in (name, "seeds: fresh"))
    assert len(made) == 2
    assert made[0].tobytes() != plain[0].tobytes()


def test_attempts_leave_the_pipeline_as_it_was(model, told):
    before = (
        type(model.pipeline.scheduler),
        findnemo.generate(model, PROMPT, [1], SETTINGS)[0].tobytes(),
    )
    for name in ("sampler: Euler", "sampler: Heun", "image to image: 0.5"):
        ATTEMPTS[name](model, told, [7], SETTINGS)
    assert (
        type(model.pipeline.scheduler),
        findnemo.generate(model, PROMPT, [1], SETTINGS)[0].tobytes(),
    ) == before


def test_what_says_what_the_caption_says_is_no_attempt(model):
    with pytest.raises(InputError, match="says what the caption says"):
        ATTEMPTS["words: lower case"](
            model, AttackedCaption("all small", Image.new("RGB", (16, 16))), [1], SETTINGS
        )


@pytest.mark.parametrize(
    ("prediction", "darkest"), [("epsilon", 0), ("v_prediction", 0), ("epsilon", 150)]
)
@torch.no_grad()
def test_image_to_image_is_the_loop_written_by_hand(prediction, darkest):
    model = findnemo.load(tiny_pipeline(prediction))
    told = AttackedCaption(
        PROMPT,
        Image.effect_mandelbrot((48, 40), (-2, -1.5, 1, 1.5), 50)
        .convert("RGB")
        .point(lambda v: max(v, darkest)),
    )
    settings = ImageSettings(steps=6, guidance=3.0, seed=5)
    strength = 0.5
    made = ATTEMPTS[f"image to image: {strength:g}"](model, told, [11, 12], settings)
    pipe = model.pipeline
    side = model.pipeline.vae.config.sample_size
    square = ImageOps.fit(told.picture, (side, side))
    pixels = (
        torch.tensor(list(square.getdata())).float().view(1, side, side, 3).permute(0, 3, 1, 2)
        / 127.5
        - 1
    )
    alphas = pipe.scheduler.alphas_cumprod
    gap_ = 1000 // settings.steps
    schedule = [k * gap_ + 1 for k in reversed(range(settings.steps))][
        settings.steps - int(settings.steps * strength) :
    ]
    text = model.encode(["", PROMPT]).tokens
    for sample, image in zip((11, 12), made, strict=True):
        generator = torch.Generator().manual_seed(sample_seed(settings.seed, PROMPT, sample))
        x = pipe.vae.encode(pixels).latent_dist.sample(generator) * pipe.vae.config.scaling_factor
        noise = torch.randn(x.shape, generator=generator)
        x = alphas[schedule[0]] ** 0.5 * x + (1 - alphas[schedule[0]]) ** 0.5 * noise
        for t in schedule:
            a = alphas[t]
            before = alphas[t - gap_] if t >= gap_ else alphas[0]
            empty, said = pipe.unet(torch.cat([x, x]), t, encoder_hidden_states=text).sample.chunk(
                2
            )
            out = empty + settings.guidance * (said - empty)
            eps = out if prediction == "epsilon" else (1 - a) ** 0.5 * x + a**0.5 * out
            x = before**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - before) ** 0.5 * eps
        shown = (pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample[0] / 2 + 0.5).clamp(
            0, 1
        )
        near = torch.tensor(list(image.getdata())).float().view(
            side, side, 3
        ) / 255 - shown.permute(1, 2, 0)
        assert near.abs().max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "DDIM"])
def test_samplers_agree_where_steps_are_many(name):
    """All solve the same equation: on a smooth model their images are near each other, those of
    the deterministic ones very near.
    """
    model = findnemo.load(tiny_pipeline("v_prediction"))
    told = AttackedCaption("a red star", Image.new("RGB", (16, 16)))
    reference, made = (
        ATTEMPTS[f"sampler: {n}"](model, told, [1], ImageSettings(30, 1.0))[0]
        for n in ("DDIM", name)
    )
    gap_ = (
        torch.tensor(list(reference.getdata())).float() - torch.tensor(list(made.getdata())).float()
    ).abs().mean() / 255
    assert gap_ < (0.2 if "ancestral" in name else 0.03)


@pytest.mark.parametrize("adapter", ["sdxl", "sd-turbo"])
def test_a_picture_encoded_is_decoded_to_what_the_autoencoder_makes_of_it(adapter):
    from _tiny_unets import PIPELINES

    model = findnemo.load(PIPELINES[adapter]())
    pixels = (
        torch.rand(1, 3, *[s * model.pipeline.vae_scale_factor for s in model.latent_shape[1:]]) * 2
        - 1
    )
    with torch.no_grad():
        known = model.pipeline.vae(pixels, sample_posterior=False).sample
        assert torch.allclose(model.decode(model.encode_images(pixels)), known, atol=1e-4)
