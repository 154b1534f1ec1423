"""Prompts as a denoiser is told of them: every operation reaches every tensor, and what
is unknown stays unknown.
"""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from _odd_pipelines import clip
from _texts import assert_equal
from _tiny_transformers import tiny_flux, tiny_sd3
from _tiny_unets import tiny_sdxl

import findnemo
from findnemo.errors import ModelError
from findnemo.models import Text

WIDTHS = {"pooled": (9,), "mask": (3,), "sizes": (6,), "guidance": (2,)}


def made(rows: int, *names: str) -> Text:
    return Text(torch.randn(rows, 3, 4), **{n: torch.randn(rows, *WIDTHS[n]) for n in names})


KNOWN = [(), ("pooled",), ("mask",), ("pooled", "sizes", "guidance"), tuple(WIDTHS)]


def test_all_that_may_be_known_is_tried():
    assert {field.name for field in fields(Text)} == {"tokens", *WIDTHS}


@pytest.mark.parametrize("names", KNOWN)
def test_rows_are_chosen_as_those_of_a_tensor(names):
    text = made(4, *names)
    assert list(text.tensors) == ["tokens", *names]
    for rows in (slice(1, 3), [2, 0, 0], torch.tensor([True, False, True, True])):
        for name, tensor in text.tensors.items():
            assert torch.equal(text[rows].tensors[name], tensor[rows])


@pytest.mark.parametrize("names", KNOWN)
def test_rows_are_repeated_expanded_and_joined(names):
    text = made(3, *names)
    assert_equal(text.repeat(2), text[[0, 0, 1, 1, 2, 2]])
    assert_equal(text[:1].expand(4), text[[0, 0, 0, 0]])
    assert text[:1].expand(4).tokens.untyped_storage().data_ptr() == (
        text.tokens.untyped_storage().data_ptr()
    )
    assert_equal(Text.cat(text.split()), text)
    assert_equal(Text.cat([text[1:], text[:0], text[:1]]), text[[1, 2, 0]])
    assert len(text) == len(text.split()) == 3


def test_all_tensors_go_to_another_dtype():
    text = made(2, *WIDTHS).to(torch.device("cpu"), torch.float16)
    assert {tensor.dtype for tensor in text.tensors.values()} == {torch.float16}


@pytest.mark.parametrize(
    ("make", "name", "other", "width"),
    [
        (tiny_sdxl, "text_encoder_2", lambda: clip(32, 40), 24),
        (tiny_sd3, "text_encoder_2", lambda: clip(32, 8), 64),
        (tiny_flux, "text_encoder", lambda: clip(40), 32),
    ],
)
def test_a_text_encoder_exchanged_after_loading_is_noticed(make, name, other, width):
    model = findnemo.load(make())
    setattr(model.pipeline, name, other())
    with pytest.raises(ModelError, match=rf"vectors of \[40\] values.*takes \[{width}\]"):
        model.encode(["a cat"])
