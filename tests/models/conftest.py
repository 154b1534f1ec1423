"""A calibration and a directory of the tiny pipeline, which tests must leave as they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from _identified import PROMPTS, SETTINGS
from _tiny import tiny_pipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

import findnemo
from findnemo.calibration import Calibration


def checked_pipeline() -> Any:
    """A pipeline with a safety checker of its own."""
    pipeline = tiny_pipeline()
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        vision_config=sizes | {"image_size": 32, "patch_size": 16},
        text_config=sizes,
        projection_dim=32,
    )
    pipeline.register_modules(
        safety_checker=StableDiffusionSafetyChecker(config), feature_extractor=CLIPImageProcessor()
    )
    return pipeline


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """A directory of a pipeline with a safety checker."""
    folder = tmp_path_factory.mktemp("whole")
    checked_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    """A calibration of the unchanged tiny pipeline."""
    return findnemo.calibrate(findnemo.load(tiny_pipeline()), PROMPTS, settings=SETTINGS)
