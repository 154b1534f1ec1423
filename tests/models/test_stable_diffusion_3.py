"""Stable Diffusion 3: two CLIP embeddings and T5's in one sequence, and T5 may be missing."""

from __future__ import annotations

import shutil

import pytest
from _tiny_transformers import tiny_sd3

import findnemo
from findnemo.errors import ModelError


def test_sd3_may_be_saved_without_t5(tmp_path):
    tiny_sd3(t5=False).save_pretrained(tmp_path / "none")
    assert [r.name for r in findnemo.load(tmp_path / "none").readers] == ["CLIP", "CLIP"]
    tiny_sd3().save_pretrained(tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost" / "text_encoder_3")
    with pytest.raises(ModelError, match="has no folder text_encoder_3"):
        findnemo.load(tmp_path / "lost")
