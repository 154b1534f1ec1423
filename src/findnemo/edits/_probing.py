"""Inputs for probing a layer, and comparison of outputs up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# sizes of the rows of a probe: a layer may treat small and large inputs differently
SIZES = (0.01, 1.0, 1.0, 1.0, 10.0)


def scale_of(width: int, rows: Sequence[int], factor: float) -> Tensor:
    """The scale (width,) of an edit: `factor` for its rows, 1 for the others."""
    scale = torch.ones(width)
    scale[list(rows)] = factor
    return scale


def times(output: Tensor, scale: Tensor) -> Tensor:
    """The effect of the hook: outputs (..., width) times a scale that broadcasts, in the outputs'
    dtype.

    Factor 0 gives 0, even for NaN and infinity.
    """
    scale = scale.to(output.device)
    product = (output * scale).to(output.dtype)
    return product if scale.requires_grad else product.masked_fill(scale == 0, 0)


def probe(weight: Tensor) -> Tensor:
    """Rows (5, in) of normal random numbers of several sizes, in the dtype and on the device of a
    weight; always the same.
    """
    rows = torch.randn(len(SIZES), weight.shape[1], generator=torch.Generator().manual_seed(0))
    return (rows * torch.tensor(SIZES)[:, None]).to(weight.device, weight.dtype)


def exact(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def size(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The typical size of outputs (rows, width) for random signs, which measures their rounding."""
    squares = inputs.square() @ weight.square().T
    return (squares if bias is None else squares + bias.square()).sqrt()


def close(given: Tensor, expected: Tensor, usual: Tensor, rounding: float) -> bool:
    """Whether outputs are as expected up to rounding; numbers beyond the range of the dtype count
    as its limits.
    """
    limits = torch.finfo(given.dtype)
    if given.shape != expected.shape:
        return False
    given = given.cpu().double()
    least = limits.tiny * limits.eps * 64
    near = (given - expected).abs() <= 8 * rounding * usual + least
    same = (given == expected) | (given.isnan() & expected.isnan())
    return bool((near | same | (expected.abs() > limits.max / 2)).all())


def alike(after: Tensor, before: Tensor, rows: list[int]) -> bool:
    """Whether some rows are equal bit for bit, or as far as the coarser of two dtypes shows."""
    pairs = [(after.to(before.dtype), before), (after, before.to(after.dtype))]
    return any(torch.equal(_bits(a)[rows], _bits(b)[rows]) for a, b in pairs)


def _bits(values: Tensor) -> Tensor:
    """The bytes of each row."""
    return values.contiguous().reshape(len(values), -1).view(torch.uint8)
