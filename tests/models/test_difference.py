"""Differences to a base: what is lost by 8 bits, low-rank factors, rows that are off,
and files of another model.
"""

import pytest
import torch
from torch import nn

from findnemo.errors import ModelError
from findnemo.models.difference import add_difference, packed, quantized, unpacked


def test_eight_bits_lose_half_a_level_at_most():
    weight = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    levels, scale = quantized(weight)
    assert levels.dtype == torch.int8
    assert levels.shape == weight.shape
    back = unpacked(packed({"w": weight}))["w"]
    assert ((back - weight).abs().flatten(1).amax(1) <= scale / 2 + 1e-7).all()


def test_low_rank_factors_and_rows_that_are_off():
    layer = nn.ModuleDict({"a": nn.Linear(3, 4, bias=False)})
    before = layer["a"].weight.detach().clone()
    down = torch.randn(2, 3)
    up = torch.randn(4, 2)
    add_difference(
        layer,
        {
            "unet.a.lora_A.weight": down,
            "unet.a.lora_B.weight": up,
            "a.weight.off": torch.tensor([1], dtype=torch.int32),
        },
    )
    expected = before.clone()
    expected[1] = 0
    torch.testing.assert_close(layer["a"].weight.detach(), expected + up @ down)


@pytest.mark.parametrize(
    "tensors",
    [
        {"b.weight": torch.ones(4, 3)},
        {"a.weight": torch.ones(3, 4)},
        {"a.weight.off": torch.tensor([9])},
    ],
)
def test_a_difference_of_another_model_is_refused(tensors):
    with pytest.raises(ModelError, match="this difference is of another model"):
        add_difference(nn.ModuleDict({"a": nn.Linear(3, 4, bias=False)}), tensors)
