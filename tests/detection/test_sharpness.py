"""Sharpness against its formula, written with plain calls of diffusers."""

from __future__ import annotations

import pytest
import torch
from _plain_detectors import CAPTION, KINDS, SETTINGS, Plain, first, mean, noise, tiny
from torch import Tensor

from findnemo.detection.sharpness import sharpness


@pytest.mark.first(1)
@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_sharpness_is_the_change_of_the_score_along_itself(kind):
    plain = Plain(kind)

    def metric(x: Tensor) -> Tensor:
        """By central differences in double precision."""
        s = plain.score(x, first(plain))
        step = 1e-4 * s / s.norm()
        change = plain.score(x + step, first(plain)) - plain.score(x - step, first(plain))
        return (change / 2e-4 * s.norm()).square().sum()

    expected = mean(metric(noise(k)) for k in range(3))
    found = sharpness(tiny(kind), CAPTION, SETTINGS, images=3)
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert found.evaluations == 18
