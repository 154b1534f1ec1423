"""A calibration of the tiny model."""

import pytest
from _holdout import LIGHT, PROMPTS
from _tiny import tiny_pipeline

import findnemo
from findnemo import Calibration, calibrate


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    return calibrate(findnemo.load(tiny_pipeline()), PROMPTS, settings=LIGHT)
