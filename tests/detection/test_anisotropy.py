"""Anisotropy against its formula, written with plain calls of diffusers."""

from __future__ import annotations

import pytest
import torch
from _plain_detectors import CAPTION, SETTINGS, Plain, first, mean, noise, tiny
from torch import Tensor

from findnemo.detection.anisotropy import ENTRIES, anisotropy


@pytest.mark.first(1)
@torch.no_grad()
@pytest.mark.parametrize("pixelwise", [False, True])
@pytest.mark.parametrize(("kind", "weights"), [("epsilon", (1, 2)), ("v_prediction", (1, 0.1))])
def test_anisotropy(kind, weights, pixelwise):
    plain = Plain(kind)

    def metric(x: Tensor) -> float:
        early, late = (
            plain.eps(x, t, plain.prompt) - plain.eps(x, t, plain.empty) for t in (first(plain), 41)
        )
        base = plain.eps(x, 41, plain.empty)
        if pixelwise:
            cosines = (late * base).sum(1) / late.norm(dim=1) / base.norm(dim=1)
            cosine = cosines.mean()
        else:
            cosine = (late * base).sum() / late.norm() / base.norm()
        return weights[0] * early.norm() * (16384 / 1024) ** 0.5 + weights[1] * cosine

    expected = mean(metric(noise(k)) for k in range(3))
    found = anisotropy(tiny(kind), CAPTION, SETTINGS, images=3, pixelwise=pixelwise)
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert ENTRIES == 16384
    norm, angle = (
        anisotropy(tiny(kind), CAPTION, SETTINGS, images=3, pixelwise=pixelwise, weights=w).value
        for w in ((1, 0), (0, 1))
    )
    assert weights[0] * norm + weights[1] * angle == pytest.approx(found.value, rel=1e-5)
    assert abs(angle) <= 1
