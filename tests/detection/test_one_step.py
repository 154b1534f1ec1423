"""One-step extraction against diffusers' Heun sampler, edges and masks against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _tiny import tiny_pipeline
from diffusers import DDIMScheduler, HeunDiscreteScheduler
from PIL import Image
from scipy import ndimage

import findnemo
from findnemo import ImageSettings
from findnemo.detection.one_step import (
    edge_consistency,
    edge_map,
    extracted,
    one_step,
    one_step_images,
    template_mask,
)
from findnemo.errors import InputError, ModelError

SETTINGS = ImageSettings(seed=4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_one_step_is_diffusers_heun_step_over_karras_sigmas(prediction_type):
    """The sampler gets what the network gives, eps or v, at its own sigma;
    nothing is converted here.
    """
    model = findnemo.load(tiny_pipeline(prediction_type))
    scheduler = HeunDiscreteScheduler.from_config(
        model.pipeline.scheduler.config, use_karras_sigmas=True, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(1)
    z = model.noise("a cat", range(2), SETTINGS.seed) * scheduler.sigmas[0]
    seen = scheduler.scale_model_input(z, scheduler.timesteps[0])
    out = [
        model.denoiser(
            seen, 999, encoder_hidden_states=model.encode([c]).tokens.expand(2, -1, -1)
        ).sample
        for c in ("", "a cat")
    ]
    x0 = scheduler.step(out[0] + 7.5 * (out[1] - out[0]), scheduler.timesteps[0], z).prev_sample
    mine = extracted(model, "a cat", 2, SETTINGS.seed)
    torch.testing.assert_close(mine[0], z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine[1], x0, rtol=1e-3, atol=1e-3)
    expected = (z - x0).square().mean().item()
    assert one_step(model, "a cat", SETTINGS, images=2).value == pytest.approx(expected, rel=1e-3)


def test_a_prompt_that_pulls_harder_scores_higher(tiny):
    """Larger is more memorized: the score grows with the part of the noise that the prompt adds."""
    plain = one_step(tiny, "a cat", SETTINGS).value
    with torch.no_grad():
        for layer in tiny.value_layers.values():
            layer.weight *= 300
    assert one_step(tiny, "a cat", SETTINGS).value > plain


def test_a_schedule_that_ends_in_pure_noise_has_no_one_step_result(tiny):
    config = tiny.pipeline.scheduler.config
    tiny.pipeline.scheduler = DDIMScheduler.from_config(
        config, rescale_betas_zero_snr=True, prediction_type="v_prediction"
    )
    tiny.pipeline.scheduler.alphas_cumprod[-1] = 0
    with pytest.raises(ModelError, match="timestep 999 is pure noise"):
        one_step(tiny, "a cat", SETTINGS)


def test_the_pictures_are_one_for_each_seed(tiny):
    pictures = one_step_images(tiny, "a cat", 2, seed=0)
    assert [p.size for p in pictures] == [(32, 32)] * 2
    assert not np.array_equal(*map(np.asarray, pictures))


def noisy(seed: int, size: tuple[int, int] = (256, 256)) -> Image.Image:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((size[1], size[0], 3)), (1.5, 1.5, 0))
    return Image.fromarray((255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8))


def test_edges_are_scipys():
    pixels = np.asarray(noisy(0), np.float32) / 255
    magnitude = np.hypot(ndimage.sobel(pixels, axis=0), ndimage.sobel(pixels, axis=1)).sum(2)
    mine = edge_map(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
    assert 0.02 < mine.mean() < 0.98
    assert ((magnitude > 1.5) != mine)[abs(magnitude - 1.5) > 1e-4].sum() == 0


def striped(*columns: int) -> Image.Image:
    pixels = np.zeros((256, 256, 3), np.uint8)
    for column in columns:
        pixels[:, column] = 255
    return Image.fromarray(pixels)


def test_an_edge_counts_where_more_than_half_of_the_seeds_have_it():
    both = striped(100, 200)
    one = striped(100)
    other = striped(20)
    assert edge_consistency([both]) == pytest.approx(4 / 256)  # a line has two sides
    assert edge_consistency([both, one, one, other]) == pytest.approx(2 / 256)
    assert edge_consistency([one, one, other, other]) == 0  # half is not more than half
    with pytest.raises(InputError, match="no images"):
        edge_consistency([])


def test_the_template_mask_is_scipys_erosion_and_dilation():
    image = noisy(1, (60, 48))
    other = noisy(1, (60, 48)).copy()
    other.paste((0, 0, 0), (20, 15, 40, 30))
    for x, y in ((5, 5), (50, 40), (0, 47)):
        other.putpixel((x, y), (255, 255, 255))
    agree = (abs(np.asarray(image, float) - np.asarray(other, float)) / 255).sum(2) < 0.03
    expected = ndimage.binary_dilation(
        ndimage.binary_erosion(agree, np.ones((3, 3))), np.ones((6, 6))
    )
    assert np.array_equal(template_mask(image, other).numpy(), expected)
    assert 0 < expected.mean() < 1
    with pytest.raises(InputError, match="resize one"):
        template_mask(image, noisy(2))
