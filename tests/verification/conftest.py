"""A model on which an edit can be seen."""

from __future__ import annotations

import pytest
import torch
from _angles import MID


@pytest.fixture
def loud(tiny):
    """A model on which switching neurons off can be seen."""
    with torch.no_grad():
        tiny.value_layers[MID].weight *= 100
        tiny.denoiser.conv_out.weight *= 10
    return tiny
