"""Drawn pictures: unlike each other, and the same at every size."""

from __future__ import annotations

import numpy as np
import torch
from _photos import photos
from PIL import Image

from findnemo import demo
from findnemo.training import plant
from findnemo.training.copies import Gallery
from findnemo.training.drawing import ALIKE, drawn


def photographs() -> list[str]:
    return [row.text for row in demo.memorized() if row.type == "VM"]


def some_alike(pictures: list[Image.Image]) -> float:
    """The similarity to the demo's descriptor that one pair in a hundred exceeds."""
    gallery = Gallery.of(pictures, demo.judges().descriptor)
    first, second = torch.triu_indices(len(pictures), len(pictures), 1)
    return float(gallery.similarity(gallery.views[:, 0])[first, second].quantile(0.99))


def test_no_two_pictures_are_alike(tmp_path):
    planted = plant(photos(tmp_path / "photos"), each=4, repeats=(1, 4, 16), size=128, seed=3)
    pictures = [Image.open(path) for one in planted for path in (one.picture, one.twin)]
    assert (
        Gallery.of(pictures).siblings().nan_to_num(-1).max() < ALIKE + 0.05
    )  # drawn larger than compared
    # to a descriptor they are as different as photographs are
    described = (some_alike(pictures), some_alike([demo.training_image(c) for c in photographs()]))
    assert described[0] <= described[1]
    for picture in pictures:
        assert picture.size == (128, 128)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 5


def test_a_picture_is_the_same_at_every_size():
    small = drawn([1, 2], 64)
    large = drawn([1, 2], 512).resize((64, 64), Image.Resampling.BOX)
    one, other = (np.asarray(image, float).ravel() for image in (small, large))
    assert np.corrcoef(one, other)[0, 1] > 0.9
