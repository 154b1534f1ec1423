"""The bright-ending mask against attention read off the projections, the masked
magnitude, and the picture.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _projected import projected
from PIL import Image

from findnemo import ImageSettings, generate
from findnemo.detection import bright_ending as module
from findnemo.detection.bright_ending import bright_ending, largest, mask_picture, soft_masks
from findnemo.detection.magnitude import magnitude
from findnemo.errors import InputError, ModelError

SETTINGS = ImageSettings(steps=3, guidance=3.0)


def test_the_mask_is_the_attention_to_end_of_text_at_the_last_step_in_the_largest_down_layers(tiny):
    images, masks = soft_masks(tiny, "a cat", SETTINGS, images=2)
    _, maps = projected(tiny, lambda: generate(tiny, "a cat", [0, 1], SETTINGS))
    first = [
        steps[-1][2:, :, 5] for name, steps in maps.items() if name.startswith("down_blocks.0.")
    ]  # start, 4 letters, end
    assert len(first) == 2
    mean = (first[0] + first[1]) / 2
    expected = (mean - mean.min(1, keepdim=True).values) / (
        mean.max(1).values - mean.min(1).values
    )[:, None]
    assert masks.shape == (2, 1, 16, 16)
    torch.testing.assert_close(masks.flatten(1), expected, atol=2e-3, rtol=0)
    _, raw = soft_masks(tiny, "a cat", SETTINGS, images=2, raw=True)
    torch.testing.assert_close(raw.flatten(1), mean, atol=1e-5, rtol=1e-3)
    plain = generate(tiny, "a cat", [0, 1], SETTINGS)
    assert all(
        abs(np.asarray(i, int) - np.asarray(p, int)).max() <= 1
        for i, p in zip(images, plain, strict=True)
    )


def test_only_down_layers_of_the_most_queries_count():
    small = torch.zeros(1, 4)
    wide = torch.ones(1, 16)
    maps = {
        "down_blocks.0.x": wide,
        "down_blocks.0.y": 3 * wide,
        "down_blocks.1.x": small,
        "up_blocks.0.x": torch.zeros(1, 64),
    }
    assert torch.equal(largest(maps), 2 * wide)
    with pytest.raises(ModelError, match="no cross-attention in the down blocks"):
        largest({"up_blocks.0.x": wide})


def test_maps_lie_as_the_latents_do_and_coarser_ones_are_enlarged():
    values = torch.arange(8.0)[None]
    assert module.attention_map(values, (2, 4)).tolist() == [[[[0, 1, 2, 3], [4, 5, 6, 7]]]]
    assert module.attention_map(values, (4, 8)).shape == (1, 1, 4, 8)
    assert torch.equal(module.min_max_scaled(torch.full((1, 1, 2, 2), 0.3)), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("raw", [False, True])
def test_the_score_is_the_magnitude_under_each_images_own_mask(tiny, monkeypatch, raw):
    _, masks = soft_masks(tiny, "a cat", SETTINGS, images=2, raw=raw)
    with torch.no_grad():
        t = tiny.timesteps(3)[0]
        latents = tiny.noise("a cat", range(2))
        eps, empty = (
            tiny.predict_noise(latents, t, tiny.encode([c]).expand(2)) for c in ("a cat", "")
        )
    expected = [(m * (e - u)).norm() / m.mean() for m, e, u in zip(masks, eps, empty, strict=True)]
    assert bright_ending(tiny, "a cat", SETTINGS, images=2, raw=raw).value == pytest.approx(
        float(sum(expected) / 2), rel=1e-3
    )
    monkeypatch.setattr(module, "soft_masks", lambda *a, **o: ([], torch.ones(2, 1, 16, 16)))
    whole = magnitude(tiny, "a cat", SETTINGS, images=2).value
    assert bright_ending(tiny, "a cat", SETTINGS, images=2).value == pytest.approx(whole)


def test_the_picture_is_bright_where_the_mask_is_high_and_shows_the_image_under_it():
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    dark, light = (
        np.asarray(mask_picture(Image.new("RGB", (32, 64), c), mask), float)
        for c in ("black", "white")
    )
    assert dark.shape == (512, 256, 3)
    assert dark[:, 200:].mean() > 3 * dark[:, :56].mean()
    assert abs(light - dark - 102).max() <= 1  # two fifths of the image


@pytest.mark.parametrize(
    "mask", [torch.zeros(1, 8, 8), torch.full((8, 8), 2.0), torch.full((8, 8), torch.nan)]
)
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(InputError, match=r"values in \[0, 1\]"):
        mask_picture(Image.new("RGB", (8, 8)), mask)
