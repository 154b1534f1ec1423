"""Curvature against its formula, written with plain calls of diffusers."""

from __future__ import annotations

import pytest
import torch
from _plain_detectors import CAPTION, KINDS, SETTINGS, Plain, first, mean, noise, tiny
from torch import Tensor

from findnemo.detection.curvature import curvature


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_is_the_difference_of_the_gradients_of_both_energies(kind):
    plain = Plain(kind)

    def metric(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        energies = [
            (plain.eps(x, first(plain), text) ** 2).sum() / 2
            for text in (plain.prompt, plain.empty)
        ]
        prompted, empty = (torch.autograd.grad(e, x)[0] for e in energies)
        return ((prompted - empty) ** 2).sum()

    expected = mean(metric(noise(k)) for k in range(3))
    model = tiny(kind)
    found = curvature(model, CAPTION, SETTINGS, images=3)
    assert found.value == pytest.approx(expected, rel=2e-3)
    assert all(p.grad is None and p.requires_grad for p in model.denoiser.parameters())
