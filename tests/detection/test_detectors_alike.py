"""What all detectors promise: one signature, an honest count, and the same answer whatever was
asked before.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo import ImageSettings
from findnemo.detection import DETECTORS
from findnemo.models import Model

SETTINGS = ImageSettings(steps=3, guidance=3.0)
COST = {
    "agreement": 4,
    "ssim": 10,
    "magnitude": 8,
    "entropy-d": 24,
    "entropy-e": 4,
    "one-step": 2,
    "edges": 8,
    "bright-ending": 32,
    "anisotropy": 16,
    "sharpness": 24,
    "curvature": 24,
    "dsm": 16,
    "dsm-1": 24,
    "latent-updates": 42,  # of them 18 for three ordinary captions
}
# a pass with its gradient counts three times, one in forward mode twice
DERIVATIVES = {"sharpness": 8, "curvature": 16}


@pytest.fixture(scope="module")
def model() -> Model:
    return findnemo.load(tiny_pipeline("v_prediction"))


@pytest.mark.first(7)
@pytest.mark.parametrize("name", DETECTORS)
def test_evaluations_are_what_passed_through_the_denoiser(model, name):
    rows = []
    handle = model.denoiser.register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0]))
    )
    score = DETECTORS[name](model, "a cat", SETTINGS)
    handle.remove()
    assert score.evaluations == sum(rows) + DERIVATIVES.get(name, 0) == COST[name]


@pytest.mark.first(3)
@pytest.mark.parametrize("name", DETECTORS)
def test_a_score_depends_on_caption_and_seed_and_not_on_what_went_before(model, name):
    detector = DETECTORS[name]
    short = ImageSettings(3, 3.0)
    first = detector(model, "a cat", short)
    other = detector(model, "two dogs", short)
    torch.manual_seed(5)
    assert detector(model, "a cat", short) == first
    reseeded = detector(model, "a cat", ImageSettings(3, 3.0, seed=1))
    if name != "edges":  # the tiny model's images are as good as grey
        assert len({first.value, other.value, reseeded.value}) == 3


@pytest.mark.parametrize("name", DETECTORS)
def test_further_parameters_are_keywords_with_the_papers_defaults(name):
    first, *more = list(inspect.signature(DETECTORS[name].call).parameters.values())[2:]
    assert first.name == "settings"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in more)
