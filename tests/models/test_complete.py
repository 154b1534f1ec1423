"""Weights that a file lacks are not filled up with random numbers, as `complete` sees to it."""

from __future__ import annotations

import logging

import pytest
from safetensors.torch import load_file, save_file

import findnemo
from findnemo.errors import ModelError


@pytest.mark.parametrize(
    ("part", "file", "message"),
    [
        ("text_encoder", "model.safetensors", "lacks weights of a text encoder .*random numbers"),
        ("unet", "diffusion_pytorch_model.safetensors", "unet .* its file lacks them"),
        ("vae", "diffusion_pytorch_model.safetensors", "vae .* its file lacks them"),
    ],
)
def test_a_file_without_some_weights_is_not_filled_up_with_random_ones(copied, part, file, message):
    weights = load_file(copied / part / file)
    kept = {
        name: value
        for name, value in weights.items()
        if not any(mark in name for mark in ("layers.1.", "mid_block"))
    }
    assert len(kept) < len(weights)
    save_file(kept, copied / part / file, {"format": "pt"})
    with pytest.raises(ModelError, match=message):
        findnemo.load(copied)


def test_weights_that_a_safety_checker_lacks_do_not_matter(copied):
    file = copied / "safety_checker" / "model.safetensors"
    weights = load_file(file)
    kept = {name: value for name, value in weights.items() if "layers.0." not in name}
    assert len(kept) < len(weights)
    save_file(kept, file, {"format": "pt"})
    assert findnemo.load(copied).pipeline.safety_checker is not None


def test_what_transformers_logs_goes_where_it_went_before(copied, saved):
    """A load reads the messages of transformers on weights, and takes them from nobody after it."""
    logger = logging.getLogger("transformers.modeling_utils")

    def state() -> list[object]:
        return [*logger.handlers, logger.level, logger.propagate]

    before = state()
    findnemo.load(saved)
    assert state() == before
    (copied / "text_encoder" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError):
        findnemo.load(copied)
    assert state() == before
