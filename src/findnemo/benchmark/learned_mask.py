"""A learned mask, the baseline of sparse-mask localization: how far to turn down each value neuron
so that no picture is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from findnemo.localization.trajectory import GENTLER, Copies, per_price

STEPS = 24
BEGIN = 0.2  # how far every neuron is turned down at the start
MOVE = 0.2  # how far the first step moves the neuron of the largest slope
COST = 0.05  # L1 penalty, as a share of the largest slope


def learned_mask(
    copies: Copies, price: Mapping[str, Tensor], steps: int = STEPS
) -> dict[str, Tensor]:
    """How far to turn down each neuron, layer -> (width,), 1 for off: the minimizer of similarity
    to a copy plus an L1 penalty.

    It is found by proximal gradient steps (ISTA, Beck and Teboulle 2009) on the similarity of
    guided x0 along the untouched trajectory (`Copies.slopes`). Steps and penalty are measured by
    what neurons do to ordinary captions (`price`: layer -> (width,), see `per_price`). Among
    neurons that are not turned down at all, those with a larger slope are slightly above the
    others, so that the result ranks all neurons.
    """
    off = {name: torch.full_like(values, BEGIN) for name, values in price.items()}
    path = copies.untouched_path
    device = copies.denoising.model.device
    rate = 0.0
    for _ in range(steps):
        scales = {name: (1 - values)[None].to(device) for name, values in off.items()}
        slopes = copies.slopes(scales, path)
        drive = per_price(slopes, price, GENTLER[0])
        largest = max(float(values.max()) for values in drive.values())
        rate = rate or MOVE / max(largest, torch.finfo(torch.float32).tiny)
        off = {
            name: (values + rate * (drive[name] - COST * largest)).clamp(0, 1)
            for name, values in off.items()
        }
    return {name: values + 1e-3 * rate * drive[name] for name, values in off.items()}
