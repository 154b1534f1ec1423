"""Joint attention (Stable Diffusion 3, FLUX.1): what the text encoders read, and statistics that
take a pass.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _tiny_transformers import tiny_flux, tiny_sd3
from torch import nn

import findnemo

PROMPTS = ["a cat", "Two dogs", "a cat"]
both = pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])


@pytest.mark.parametrize(("make", "t5", "reads"), [(tiny_sd3, 3, 256), (tiny_flux, 2, 512)])
def test_clip_reads_what_the_pipeline_says_and_t5_its_own_length(make, t5, reads):
    model = findnemo.load(make())
    model.pipeline.tokenizer_max_length = 40
    assert model.limit("tokenizer") == 40
    assert model.limit(f"tokenizer_{t5}") == reads


@both
def test_statistics_take_a_pass_of_its_own_for_every_prompt(make):
    model = findnemo.load(make())
    text = model.encode(PROMPTS)
    rows_seen = []

    def count(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        rows_seen.append(len(kwargs["hidden_states"]))

    handle = next(iter(model.parts.values())).register_forward_pre_hook(count, with_kwargs=True)
    found = model.value_activations(PROMPTS, text)
    handle.remove()
    assert rows_seen == [1, 1, 1]
    assert {name: rows.shape for name, rows in found.items()} == {
        name: (3, width) for name, width in model.widths().items()
    }
    for rows in found.values():
        assert torch.equal(rows[0], rows[2])
        assert not torch.allclose(rows[0], rows[1])


@both
def test_parts_are_the_blocks_that_give_text_and_image(make):
    """The last of Stable Diffusion 3's three blocks gives the image alone."""
    model = findnemo.load(make())
    assert list(model.parts) == [f"transformer_blocks.{k}" for k in range(2)]


@both
def test_the_width_of_the_pooled_embedding_is_that_of_what_is_encoded(make):
    model = findnemo.load(make())
    assert model.encode(["a cat"]).pooled.shape == (1, model.pooled_width)
