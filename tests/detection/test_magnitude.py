"""The magnitude against a whole pipeline call, its gradient against finite
differences, and the picture of it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo import ImageSettings
from findnemo.detection.magnitude import PALE, STRONG, magnitude, norms, saliency, saliency_picture
from findnemo.errors import InputError
from findnemo.models import Model
from findnemo.seeds import sample_seed

SETTINGS = ImageSettings(steps=4, guidance=3.0, seed=2)
CAPTION = "a cat"


def by_pipeline(model: Model, images: int) -> torch.Tensor:
    """|| eps - eps || of every step and image, (steps, images), read off an ordinary guided
    call: of v, the difference counts sqrt(a).
    """
    rows = []
    pipeline = model.pipeline
    a = pipeline.scheduler.alphas_cumprod

    def hook(module, args, output):
        unconditional, conditional = output[0].chunk(2)
        share = (
            a[int(args[1])].sqrt()
            if pipeline.scheduler.config.prediction_type == "v_prediction"
            else 1
        )
        rows.append(share * (conditional - unconditional).square().sum((1, 2, 3)).sqrt())

    handle = model.denoiser.register_forward_hook(hook)
    generators = [
        torch.Generator().manual_seed(sample_seed(SETTINGS.seed, CAPTION, k)) for k in range(images)
    ]
    options = {
        "num_inference_steps": SETTINGS.steps,
        "guidance_scale": SETTINGS.guidance,
        "output_type": "latent",
    }
    pipeline(CAPTION, num_images_per_prompt=images, generator=generators, **options)
    handle.remove()
    return torch.stack(rows)


@pytest.mark.first(1)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_magnitude_is_that_of_a_guided_pipeline_call(prediction_type):
    model = findnemo.load(tiny_pipeline(prediction_type))
    table = by_pipeline(model, images=3)
    for steps in ((0,), (2,), (0, 1, 3)):
        found = magnitude(model, CAPTION, SETTINGS, images=3, steps=steps)
        assert found.value == pytest.approx(float(table[list(steps)].mean()), rel=1e-3)
        assert found.evaluations == 6 * (max(steps) + 1)


def test_a_prompt_that_is_empty_adds_nothing(tiny):
    assert magnitude(tiny, "", SETTINGS).value == 0


def test_a_mask_weighs_positions_and_its_area_is_divided_out():
    gap = torch.randn(2, 4, 8, 8)
    mask = torch.rand(2, 1, 8, 8)
    expected = [
        np.sqrt(((g * m) ** 2).sum()) / m.mean()
        for g, m in zip(gap.numpy(), mask.numpy(), strict=True)
    ]
    assert norms(gap, mask).tolist() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(norms(gap, mask), norms(gap, 0.5 * mask))
    torch.testing.assert_close(norms(gap, torch.ones(2, 1, 8, 8)), norms(gap))


@pytest.mark.parametrize("steps", [(), (4,), (-1,)])
def test_steps_outside_the_run_are_refused(tiny, steps):
    with pytest.raises(InputError, match="are not in a run of 4: give one or more of 0 to 3"):
        magnitude(tiny, CAPTION, SETTINGS, steps=steps)


@torch.no_grad()
def test_saliency_is_the_slope_of_the_magnitude_by_finite_differences(tiny):
    found = saliency(tiny, "cats", SETTINGS, images=1)
    assert [token for token, _ in found] == ["c", "a", "t", "s"]
    text = tiny.encode(["cats"])
    step = 2e-2
    position = 2
    shifts = step * torch.cat([torch.eye(32), -torch.eye(32)])
    moved = text.repeat(64)
    moved.tokens[:, position] += shifts
    latents = tiny.noise("cats", [0], SETTINGS.seed)
    t = tiny.timesteps(SETTINGS.steps)[0]
    empty = tiny.predict_noise(latents, t, tiny.encode([""]))
    up, down = norms(tiny.predict_noise(latents.expand(64, -1, -1, -1), t, moved) - empty).chunk(2)
    assert found[position - 1][1] == pytest.approx(
        float(((up - down) / (2 * step)).norm()), rel=0.05
    )


def test_saliency_leaves_no_gradient_behind(tiny):
    saliency(tiny, CAPTION, SETTINGS, images=1)
    assert all(p.grad is None for p in tiny.denoiser.parameters())
    assert saliency(tiny, "", SETTINGS) == []


def colours(picture) -> set[tuple[int, ...]]:
    return {colour for _, colour in picture.getcolors(1 << 20)}


def test_the_picture_paints_the_heaviest_token_strongest():
    picture = saliency_picture([("light", 0.0), ("heavy", 2.0)])
    assert {STRONG, PALE} <= colours(picture)
    strong = (np.asarray(picture) == STRONG).all(-1)
    pale = (np.asarray(picture) == PALE).all(-1)
    assert strong.any(0).argmax() > pale.any(0).nonzero()[0].max()  # to the right of the light one
    assert strong.sum() > 2 * pale.sum()  # and with a bar


def test_a_long_caption_breaks_into_lines():
    one, many = (saliency_picture([("token", 0.5)] * n) for n in (3, 40))
    assert one.width == many.width
    assert many.height > 3 * (one.height - 40)
    with pytest.raises(InputError, match="nothing to draw"):
        saliency_picture([])
