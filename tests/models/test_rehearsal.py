"""What a model cannot do is told when it is loaded, with its parts, and costs no random number."""

from __future__ import annotations

import torch
from _tiny import tiny_pipeline

import findnemo


def test_loading_draws_no_random_numbers_and_changes_no_weights():
    pipeline = tiny_pipeline()
    state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    findnemo.load(pipeline)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(value, weights[name]) for name, value in pipeline.unet.state_dict().items()
    )
