"""Original names of U-Net weights: diffusers reads every weight back from them."""

from __future__ import annotations

import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_unets import tiny_sdxl
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from findnemo.models.unet_names import unet_name


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl])
def test_diffusers_gives_every_weight_the_name_that_it_had(make):
    unet = make().unet
    weights = unet.state_dict()
    layers = unet.config.layers_per_block
    attended = frozenset(
        k for k, kind in enumerate(unet.config.up_block_types) if kind.startswith("CrossAttn")
    )
    original = {
        f"model.diffusion_model.{unet_name(name, layers, attended)}": value
        for name, value in weights.items()
    }
    assert len(original) == len(weights)
    found = convert_ldm_unet_checkpoint(original, dict(unet.config))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("conv_in.bias", "input_blocks.0.0.bias"),
        ("time_embedding.linear_2.weight", "time_embed.2.weight"),
        ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
        ("mid_block.resnets.1.conv1.weight", "middle_block.2.in_layers.2.weight"),
    ],
)
def test_names_are_those_in_the_file_of_stable_diffusion_1(name, original):
    assert unet_name(name, 2, frozenset({1, 2, 3})) == original


@pytest.mark.parametrize(
    "name", ["conv_in.scale", "extra.weight", "mid_block.resnets.0.scale.weight"]
)
def test_a_weight_that_the_layout_does_not_know_has_no_name(name):
    assert unet_name(name, 2) is None
