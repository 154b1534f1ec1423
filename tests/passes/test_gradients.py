"""Gradients of masks and embeddings: weights take none, and have to be such that they could."""

from __future__ import annotations

import pytest
import torch
from _tiny import tiny_pipeline
from torch import nn

import findnemo
from findnemo.errors import EditError
from findnemo.passes.gradients import frozen
from findnemo.robustness.attack import optimized


def test_weights_made_in_inference_mode_are_named():
    with torch.inference_mode():
        pipeline = tiny_pipeline()
    model = findnemo.load(pipeline)
    with pytest.raises(EditError, match=r"inference_mode.*load the model outside of it"):
        optimized(model, model.noise("c", [0]), model.encode(["a cat"]), steps=(1,))


def test_a_frozen_network_still_passes_gradients_to_its_input():
    network = nn.Linear(2, 1)
    seen = torch.ones(1, 2, requires_grad=True)
    with frozen(network):
        network(seen).sum().backward()
    assert torch.equal(seen.grad, network.weight)
    assert network.weight.grad is None


def test_weights_are_trained_again_afterwards_unless_they_were_frozen_before():
    network = nn.Linear(2, 1)
    network.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen(network):
        raise KeyError
    assert network.weight.requires_grad
    assert not network.bias.requires_grad
