"""Comparing what models are told of prompts."""

from __future__ import annotations

import torch

from findnemo.models import Text


def assert_equal(one: Text, other: Text) -> None:
    """Both have the same tensors, to the last bit."""
    torch.testing.assert_close(one.tensors, other.tensors, atol=0, rtol=0)
