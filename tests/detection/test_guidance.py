"""Predictions with and without the prompt, and guided runs of them, as detectors show them."""

from __future__ import annotations

import pytest
from _plain_detectors import CAPTION, SETTINGS, tiny
from _tiny_transformers import tiny_sd3

import findnemo
from findnemo import ImageSettings
from findnemo.detection import DETECTORS
from findnemo.errors import ModelError


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["anisotropy", "sharpness", "curvature"])
def test_the_empty_prompt_adds_nothing(name):
    assert DETECTORS[name](tiny("epsilon"), "", SETTINGS, images=1).value == 0


def test_a_guidance_of_one_or_less_is_none():
    """As in a pipeline's call: the run of `guided_run` then follows the prompt alone."""
    model = tiny("epsilon")
    one, half, none, more = (
        DETECTORS["dsm"](model, CAPTION, ImageSettings(4, scale), images=1).value
        for scale in (1.0, 0.5, 0.0, 3.0)
    )
    assert one == half == none != more


def test_a_flow_is_refused_by_name_and_sent_to_ssim():
    flow = findnemo.load(tiny_sd3())
    for name in ("anisotropy", "sharpness", "curvature", "dsm"):
        with pytest.raises(ModelError, match=r"StableDiffusion3Pipeline.*the detector ssim"):
            DETECTORS[name](flow, CAPTION, SETTINGS)
