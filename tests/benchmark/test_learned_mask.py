"""The learned mask step by step."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from findnemo.benchmark.learned_mask import BEGIN, COST, MOVE, learned_mask
from findnemo.localization.trajectory import FLOOR, GENTLER


def fake(slopes):
    """Copies whose likeness has these slopes at every mask; it keeps the masks
    that it was asked about.
    """
    asked = []

    def answered(levels, path):
        asked.append({name: level[0].clone() for name, level in levels.items()})
        return slopes

    model = SimpleNamespace(device=torch.device("cpu"))
    return (
        SimpleNamespace(
            slopes=answered, untouched_path=None, denoising=SimpleNamespace(model=model)
        ),
        asked,
    )


def test_the_first_steps_of_a_learned_mask_by_hand():
    slopes = {"a": torch.tensor([4.0, 1.0, -2.0])}
    price = {"a": torch.ones(3)}
    copies, asked = fake(slopes)
    mask = learned_mask(copies, price, steps=2)["a"]
    assert torch.allclose(asked[0]["a"], torch.full((3,), 1 - BEGIN))
    drive = slopes["a"] / (1 + FLOOR) ** GENTLER[0]
    step = MOVE / drive[0] * (drive - COST * drive[0])
    once = (BEGIN + step).clamp(0, 1)
    assert torch.allclose(asked[1]["a"], 1 - once)
    assert torch.allclose(mask, (once + step).clamp(0, 1), atol=1e-3)
    assert mask[0] > mask[1] > mask[2]


def test_a_learned_mask_spares_what_ordinary_captions_need():
    copies, _ = fake({"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([-1.0, 0.0])})
    mask = learned_mask(copies, {"a": torch.tensor([100.0, 1.0]), "b": torch.ones(2)}, steps=4)
    assert mask["a"][1] > mask["a"][0]
    assert (
        mask["b"][1] > mask["b"][0]
    )  # neither is turned down in the end: the slope still ranks them
