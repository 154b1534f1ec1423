"""Stable Diffusion 3: two CLIP embeddings and T5's in one sequence, and T5 may be missing."""

from __future__ import annotations

import shutil

import pytest
import torch
from _tiny_transformers import tiny_sd3

import findnemo
from findnemo.errors import ModelError
from findnemo.models import StableDiffusion3


def test_sd3_may_be_saved_without_t5(tmp_path):
    tiny_sd3(t5=False).save_pretrained(tmp_path / "none")
    assert [r.name for r in findnemo.load(tmp_path / "none").readers] == ["CLIP", "CLIP"]
    tiny_sd3().save_pretrained(tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost" / "text_encoder_3")
    with pytest.raises(ModelError, match="has no folder text_encoder_3"):
        findnemo.load(tmp_path / "lost")


@torch.no_grad()
def test_embeddings_of_both_clips_lie_side_by_side_and_those_of_t5_after_them():
    model = findnemo.load(tiny_sd3())
    parts = model.pipeline.components
    text = model.encode(["a cat"])
    assert text.tokens.shape == (1, 77 + 256, 64)
    pooled = []
    for k, name in enumerate(("", "_2")):
        ids = parts[f"tokenizer{name}"]("a cat", padding="max_length", return_tensors="pt")
        given = parts[f"text_encoder{name}"](ids.input_ids, output_hidden_states=True)
        columns = slice(32 * k, 32 * (k + 1))
        torch.testing.assert_close(text.tokens[:, :77, columns], given.hidden_states[-2])
        pooled.append(given.text_embeds)
    torch.testing.assert_close(text.pooled, torch.cat(pooled, -1))
    ids = parts["tokenizer_3"]("a cat", padding="max_length", max_length=256, return_tensors="pt")
    expected = parts["text_encoder_3"](ids.input_ids)[0]
    torch.testing.assert_close(text.tokens[:, 77:], expected)


def test_without_t5_its_positions_are_zeros():
    model = findnemo.load(tiny_sd3(t5=False))
    assert isinstance(model, StableDiffusion3)
    text = model.encode(["a cat"])
    assert text.tokens.shape == (1, 77 + 256, 64)
    assert not text.tokens[:, 77:].any()
    assert text.tokens[:, :77].any()
