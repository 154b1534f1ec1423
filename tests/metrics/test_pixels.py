"""From pictures to a network's input (`Preprocessing`): sizes, the middle, and normalization."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from findnemo.metrics.descriptor import CONVENTIONS

HALF = CONVENTIONS["half"]  # mean and deviation of a half, which gives -1 to 1
SQUEEZED = replace(HALF, resize=None, resample="nearest")


def test_without_resize_a_picture_is_squeezed():
    half_red = Image.new("RGB", (8, 4))
    half_red.paste((255, 0, 0), (0, 0, 4, 4))
    (found,) = replace(SQUEEZED, size=4)([half_red])
    assert found.shape == (3, 4, 4)
    assert torch.equal(found[0], torch.tensor([[1.0, 1, -1, -1]] * 4))
    assert torch.equal(found[1], -torch.ones(4, 4))


def test_with_resize_the_middle_is_cut_out():
    stripes = Image.fromarray(
        np.repeat(np.arange(0, 240, 20, np.uint8)[None, :, None], 6, 0).repeat(3, 2)
    )
    plain = replace(HALF, mean=(0, 0, 0), std=(1, 1, 1), resample="nearest")
    (found,) = replace(plain, size=4, resize=6)([stripes])
    assert (found[0, 0] * 255).round().tolist() == [80, 100, 120, 140]  # columns 4 to 7 of 12


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_a_strip_is_cut_before_it_is_enlarged(size):
    found = replace(HALF, size=8, resize=8)([Image.new("RGB", size, "white")])
    assert found.shape == (1, 3, 8, 8)
    assert bool((found == 1).all())


def test_grey_and_transparent_pictures_have_three_channels():
    images = [Image.new("L", (4, 4), 255), Image.new("RGBA", (4, 4), (255, 255, 255, 0))]
    assert replace(SQUEEZED, size=2)(images).shape == (2, 3, 2, 2)
