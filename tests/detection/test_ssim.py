"""Similar noise differences: the scores of the paper's and of findnemo's own settings."""

from __future__ import annotations

import pytest
from _plain_detectors import tiny

import findnemo
from findnemo import ImageSettings, Settings
from findnemo.detection import DETECTORS
from findnemo.detection.ssim import agreement, ssim
from findnemo.errors import InputError
from findnemo.models import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("v_prediction")


def test_ssim_is_the_score_of_the_papers_settings(model):
    assert DETECTORS["ssim"](model, "a cat", ImageSettings(seed=3)).value == findnemo.score(
        model, "a cat", settings=Settings(seed=3)
    )


def test_one_image_agrees_with_no_other(model):
    for detector in (ssim, agreement):
        with pytest.raises(InputError, match="that of 2 images or more, not of 1"):
            detector(model, "a cat", ImageSettings(), images=1)


def test_agreement_is_the_mean_of_the_pairs_and_ssim_the_largest(model):
    """Of two images there is one pair, and of three the mean lies under the largest."""
    settings = ImageSettings(seed=3)
    both = [d(model, "a cat", settings, images=2).value for d in (agreement, ssim)]
    assert both[0] == both[1]
    three = [d(model, "a cat", settings, images=3).value for d in (agreement, ssim)]
    assert three[0] < three[1]
