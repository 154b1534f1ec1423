"""Parts that a pipeline lacks are named when it is loaded; those that findnemo does not need may
be missing (`left_out`).
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _odd_pipelines import with_parts
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_pixart, tiny_sd3
from _tiny_unets import tiny_if, tiny_sdxl
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

import findnemo
from findnemo import Settings
from findnemo.errors import FindnemoWarning, ModelError

TWO = Settings(samples=2)
OF_TWO_READERS = (
    "tokenizer",
    "text_encoder",
    "tokenizer_2",
    "text_encoder_2",
    "transformer",
    "scheduler",
    "vae",
)
PARTS = {
    f"{make.__name__} without {part}": (
        with_parts(make, **{part: None}),
        rf"has no {part} \(None\).*; findnemo \w+",
    )
    for make, parts in (
        (tiny_pipeline, ("tokenizer", "text_encoder", "unet", "scheduler", "vae")),
        (tiny_sdxl, ("tokenizer_2", "text_encoder_2", "unet", "scheduler", "vae")),
        (tiny_if, ("tokenizer", "text_encoder", "unet", "scheduler")),
        (tiny_pixart, ("tokenizer", "text_encoder", "transformer", "scheduler", "vae")),
        (tiny_sd3, OF_TWO_READERS),
        (tiny_flux, OF_TWO_READERS),
    )
    for part in parts
} | {
    "half a pair in sdxl": (
        with_parts(tiny_sdxl, text_encoder=None),
        r"has a tokenizer and no text_encoder \(None\)",
    ),
    "half a pair in sd3": (
        with_parts(tiny_sd3, tokenizer_3=None),
        r"has a text_encoder_3 and no tokenizer_3 \(None\)",
    ),
    "meta": (
        with_parts(tiny_pipeline, text_encoder=lambda p: p.text_encoder.to("meta")),
        "text_encoder .* meta device",
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", PARTS)
def test_a_pipeline_that_cannot_be_worked_on_is_refused_when_it_is_loaded(name):
    make, message = PARTS[name]
    pipeline = make()
    with pytest.raises(ModelError, match=message):
        findnemo.load(pipeline)


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "gone", [["safety_checker"], ["feature_extractor"], ["safety_checker", "feature_extractor"]]
)
def test_a_safety_checker_that_is_not_there_is_not_missed(copied, gone):
    for name in gone:
        shutil.rmtree(copied / name)
    with pytest.warns(FindnemoWarning, match=f"has no usable {gone[0]}"):
        model = findnemo.load(copied)
    assert model.pipeline.safety_checker is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", FindnemoWarning)
        whole = findnemo.load(tiny_pipeline())
    whole.denoiser.to(memory_format=torch.channels_last)  # as what `load` opens
    assert findnemo.score(model, "a cat", settings=TWO) == findnemo.score(
        whole, "a cat", settings=TWO
    )


def test_a_pickled_safety_checker_is_left_out_and_one_that_is_there_is_kept(saved, copied):
    assert type(findnemo.load(saved).pipeline.safety_checker) is StableDiffusionSafetyChecker
    weights = copied / "safety_checker" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.warns(FindnemoWarning, match="no usable safety_checker"):
        assert findnemo.load(copied).pipeline.safety_checker is None


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
@pytest.mark.parametrize("how", ["folder", "null", "nulls", "unnamed"])
def test_a_directory_without_a_part_says_which_before_it_is_loaded(copied, part, how, monkeypatch):
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    if how == "folder":
        shutil.rmtree(copied / part)
    elif how == "unnamed":
        rewrite(copied / "model_index.json", lambda index: index.pop(part))
    else:
        rewrite(
            copied / "model_index.json",
            lambda index: index.update({part: None if how == "null" else [None, None]}),
        )
    with pytest.raises(
        ModelError,
        match=f"has no folder {part}, though" if how == "folder" else rf"has no {part} \(None\)",
    ):
        findnemo.load(copied)
