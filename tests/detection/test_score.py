"""A `Score` is the mean of one image or more, and never NaN."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _plain_detectors import CAPTION, SETTINGS, tiny
from _tiny import tiny_pipeline

import findnemo
from findnemo.detection import DETECTORS
from findnemo.detection.latent_updates import updates
from findnemo.errors import InputError, NumericalError
from findnemo.models import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("v_prediction")


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["anisotropy", "sharpness", "curvature", "dsm", "latent-updates"])
def test_a_score_is_the_mean_of_its_images_whatever_the_batch(name):
    model = tiny("v_prediction")
    known = {}
    if name == "latent-updates":
        known = {"reference": [updates(model, c, SETTINGS) for c in ("snow", "a tree", "a sea")]}

    def value(images: int) -> float:
        return DETECTORS[name](model, CAPTION, SETTINGS, images=images, **known).value

    # the second image alone is what two have beside the first
    one, two, three = (value(n) for n in (1, 2, 3))
    second, third = 2 * two - one, 3 * three - 2 * two
    alone = []
    shifted = findnemo.load(tiny_pipeline("v_prediction"))
    for k in (1, 2):
        own = model.noise(CAPTION, [k], SETTINGS.seed)
        shifted.noise = lambda *args, own=own: own
        alone.append(DETECTORS[name](shifted, CAPTION, SETTINGS, images=1, **known).value)
    assert [second, third] == pytest.approx(alone, rel=5e-3)
    assert (
        DETECTORS[name](model, CAPTION, replace(SETTINGS, seed=3), images=1, **known).value != one
    )


@pytest.mark.first(7)
@pytest.mark.parametrize("name", DETECTORS)
def test_nan_is_refused(name):
    broken = findnemo.load(tiny_pipeline())
    with torch.no_grad():
        broken.denoiser.conv_in.weight.fill_(torch.nan)
    with pytest.raises(NumericalError):
        DETECTORS[name](broken, "a cat", SETTINGS)


@pytest.mark.parametrize("name", ["magnitude", "one-step", "edges", "anisotropy", "latent-updates"])
def test_no_image_is_no_score(model, name):
    with pytest.raises(InputError, match="1 image or more, not 0"):
        DETECTORS[name](model, "a cat", SETTINGS, images=0)
