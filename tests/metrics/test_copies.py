"""Copies among finished images, by pictures and numbers that can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from findnemo.metrics import Judges
from findnemo.metrics.copies import (
    compare_images,
    copies_in,
    copying,
    pixel_changes,
    pixel_vectors,
    shares,
)


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(pixels)


def turned(images):
    """A descriptor that looks at the first pixel alone: a unit vector by its red."""
    angles = torch.tensor([image.getpixel((0, 0))[0] / 255 for image in images])
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_products_of_pixel_vectors_are_correlations():
    images = [picture(k) for k in range(3)]
    vectors = pixel_vectors(images)
    rows = np.stack([np.asarray(image, float).ravel() for image in images])
    np.testing.assert_allclose((vectors @ vectors.T).numpy(), np.corrcoef(rows), atol=1e-5)


def test_an_image_is_compared_with_those_of_other_seeds_only():
    first, second, third = (picture(k) for k in range(3))
    alone = copying([first, second, third], [first, second, third])
    assert alone.max() < 0.3, "an image is no copy of itself"
    twice = copying([first, first, third], [first, first, third])
    assert twice[:2].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert twice[2] < 0.3


@pytest.mark.parametrize(
    ("before", "after", "trained_before", "trained_after", "found"),
    [
        (1.0, 0.0, None, None, (True, False)),
        (1.0, 0.25, None, None, (True, True)),
        (0.5, 0.0, None, None, (True, False)),
        (0.25, 0.25, None, None, (False, False)),  # two similar images are chance
        (None, None, 0.7, 0.69, (True, False)),
        (0.0, 0.0, 0.7, 0.7, (True, True)),
        (None, None, None, None, (None, None)),
    ],
)
def test_the_rule_of_a_copy(before, after, trained_before, trained_after, found):
    values = {
        "copies_before": before,
        "copies_after": after,
        "sscd_orig_before": trained_before,
        "sscd_orig_after": trained_after,
    }
    assert (copies_in(values, "before"), copies_in(values, "after")) == found


def test_a_similarity_of_exactly_the_level_is_a_copy():
    found = shares({"copies_after": torch.tensor([0.7, 0.6999], dtype=torch.float64)})
    assert found == {"copies_after": 0.5}


def test_figures_of_a_prompt_by_hand():
    before = [Image.new("RGB", (2, 2), (red, 0, 0)) for red in (0, 0, 255)]
    after = [Image.new("RGB", (2, 2), (red, 0, 0)) for red in (0, 255, 0)]
    judges = Judges(descriptor=turned, original=Image.new("RGB", (2, 2)))
    found = compare_images("a caption", before, after, judges)
    cosine = float(np.cos(1))  # between the two pictures
    assert found["sscd_gen"] == pytest.approx(cosine)  # 1, cos 1, cos 1
    assert found["d_sscd_before"] == pytest.approx(cosine)  # 1, cos 1, cos 1
    assert found["sscd_orig_before"] == pytest.approx(1)
    assert found["copies_before"] == pytest.approx(2 / 3)
    assert found["copies_after"] == 1  # each is like one of another seed


def test_changes_of_pixels_are_from_0_to_1():
    black, white = (Image.new("RGB", (4, 4), name) for name in ("black", "white"))
    assert pixel_changes([black, black, white], [white, black, white]) == [1, 0, 0]
