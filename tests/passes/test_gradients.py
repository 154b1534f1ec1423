"""Gradients by the scales of neurons."""

from __future__ import annotations

from functools import partial

import torch

from findnemo.edits import scaled
from findnemo.passes import side_by_side
from findnemo.passes.sharing import Pass, gradients


def test_gradients_are_those_of_autograd(tiny):
    """Two captions in one pass against a plain backward pass each."""

    def plain(caption, timestep):
        scales = {n: torch.full((1, w), 0.7, requires_grad=True) for n, w in tiny.widths().items()}
        with scaled(tiny, scales):
            output = tiny.output(
                tiny.noise(caption, [0, 1]), timestep, tiny.encode([caption]).expand(2)
            )
        found = torch.autograd.grad(output.square().sum(), list(scales.values()))
        return {name: g[0] for name, g in zip(scales, found, strict=True)}

    def shared(caption, timestep):
        scales = {n: torch.full((1, w), 0.7) for n, w in tiny.widths().items()}
        asked = Pass(
            tiny.noise(caption, [0, 1]), timestep, (tiny.encode([caption]).expand(2),), scales
        )
        return gradients(tiny, asked, lambda out, rows: out[0].square().sum((1, 2, 3)))

    cases = [("a", 981), ("b", 501)]
    found = side_by_side(tiny, [partial(shared, *case) for case in cases])
    for case, one in zip(cases, found, strict=True):
        expected = plain(*case)
        assert list(one) == list(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(one[name], gradient, atol=1e-4, rtol=1e-3)
