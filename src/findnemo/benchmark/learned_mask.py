"""A learned mask, the baseline of sparse-mask localization: how far each value neuron is turned
down so that pictures are no copies.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from findnemo.localization.trajectory import GENTLER, Copies, per_price

STEPS = 24
BEGIN = 0.2  # how far every neuron is turned down at first
MOVE = 0.2  # how far the first step moves the neuron of the largest slope
COST = 0.05  # L1 penalty, as a share of the largest slope


def learned_mask(
    copies: Copies, price: Mapping[str, Tensor], steps: int = STEPS
) -> dict[str, Tensor]:
    """How far each neuron is to be turned down, layer -> (width,), 1 for off: what minimises
    likeness to a copy plus an L1 penalty.

    By proximal gradient steps (ISTA, Beck and Teboulle 2009) on the likeness of guided x0 along the
    untouched trajectory (`Copies.slopes`). Steps and penalty are in the metric of what neurons are
    to ordinary captions (`price`: layer -> (width,), see `per_price`). Of neurons that are not
    turned down at all those are a hair above the others whose slope is larger, so that the result
    ranks all.
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
