"""The picture that an attack is after, and how near an image comes to it."""

import numpy as np
import pytest
import torch
from PIL import Image

import findnemo
from findnemo.images import ImageSettings
from findnemo.robustness import closeness, subject
from findnemo.seeds import UNTOUCHED, WANTED

SETTINGS = ImageSettings(steps=1, guidance=1.0)


def noisy(seed: int, side: int = 8) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_without_a_training_image_the_picture_is_one_of_the_untouched_model(model):
    made = subject(model, "a cat", SETTINGS)
    samples = [WANTED, *range(UNTOUCHED, UNTOUCHED + 3)]
    images = findnemo.generate(model, "a cat", samples, SETTINGS)
    assert (made.prompt, made.known) == ("a cat", False)
    shown = [image.tobytes() for image in (made.picture, *made.others)]
    assert shown == [image.tobytes() for image in images]
    assert len(set(shown)) == 4


def test_a_training_image_is_the_picture_in_colour_and_the_others_are_the_same(model):
    grey = noisy(0).convert("L")
    made = subject(model, "a cat", SETTINGS, grey)
    assert (made.known, made.picture.mode) == (True, "RGB")
    assert made.picture.tobytes() == grey.convert("RGB").tobytes()
    beside = [image.tobytes() for image in subject(model, "a cat", SETTINGS).others]
    assert [image.tobytes() for image in made.others] == beside


def test_closeness_is_the_correlation_with_the_nearest_picture():
    images = [noisy(1), noisy(2)]
    references = [noisy(3), noisy(4), noisy(1)]
    rows = [np.asarray(image, np.float64).ravel() for image in (*images, *references)]
    table = np.corrcoef(rows)[:2, 2:]
    near = closeness(images, references)
    assert near.tolist() == pytest.approx(table.max(1).tolist(), abs=1e-5)
    assert near[0] == pytest.approx(1, abs=1e-5)
    assert near[1] < 0.5


def test_a_larger_picture_is_as_near_as_its_copy_in_the_size_of_the_images():
    image = noisy(1)
    larger = image.resize((32, 32), Image.Resampling.NEAREST)
    assert closeness([image], [larger]).item() > 0.9
    assert closeness([image], [noisy(2, 32)]).item() < 0.5


def test_with_a_descriptor_it_is_its_similarity_that_counts():
    class Descriptor:
        def similarity(self, images, references):
            assert (len(images), len(references)) == (2, 3)
            return torch.tensor([[0.1, 0.7, 0.2], [0.3, -0.5, 0.0]])

    near = closeness([noisy(1)] * 2, [noisy(2)] * 3, Descriptor())
    assert near.tolist() == pytest.approx([0.7, 0.3])
