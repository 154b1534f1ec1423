"""The published U-Nets at full size, from their configurations and without weights: which layers, how many neurons, what travels with a prompt.

Sizes are published as 860 M, 866 M, 2.6 B, 400 M and 4.3 B parameters.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel

from findnemo.models import DeepFloyd, Model, StableDiffusion, StableDiffusionXL

SD14 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD21 = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
LCM = SD14 | {"time_cond_proj_dim": 256}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
IF = {
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "act_fn": "gelu",
    "attention_head_dim": 64,
    "down_block_types": ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
    "layers_per_block": 3,
    "cross_attention_norm": "group_norm",
    "encoder_hid_dim": 4096,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 64,
    "resnet_time_scale_shift": "scale_shift",
}
IF_M = IF | {"block_out_channels": (192, 384, 576, 768), "cross_attention_dim": 768}
IF_XL = IF | {"block_out_channels": (704, 1408, 2112, 2816), "cross_attention_dim": 2816}

# adapter, configuration, parameters in millions, value layers per block, their widths, latent, width of the pooled embedding
PUBLISHED: dict[str, tuple] = {
    "SD 1.4": (StableDiffusion, SD14, 860, [2, 2, 2, 1], [320, 640, 1280, 1280], (4, 64, 64), None),
    "SD 2.1": (StableDiffusion, SD21, 866, [2, 2, 2, 1], [320, 640, 1280, 1280], (4, 96, 96), None),
    "LCM Dreamshaper v7": (
        StableDiffusion,
        LCM,
        860,
        [2, 2, 2, 1],
        [320, 640, 1280, 1280],
        (4, 64, 64),
        None,
    ),
    "SDXL base 1.0": (
        StableDiffusionXL,
        SDXL,
        2567,
        [2 * 2, 2 * 10, 10],
        [640, 1280, 1280],
        (4, 128, 128),
        1280,
    ),
    "IF-I-M v1.0": (DeepFloyd, IF_M, 372, [3, 3, 3, 1], [384, 576, 768, 768], (3, 64, 64), None),
    "IF-I-XL v1.0": (
        DeepFloyd,
        IF_XL,
        4305,
        [3, 3, 3, 1],
        [1408, 2112, 2816, 2816],
        (3, 64, 64),
        None,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_of_published_networks(name: str) -> None:
    adapter, config, millions, layers, widths, latent, pooled = PUBLISHED[name]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    model: Model = adapter(SimpleNamespace(unet=unet))
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6) == millions
    blocks = [n.partition(".attentions")[0] for n in model.value_layers]
    # in forward order: down blocks, then the middle
    assert list(Counter(blocks).values()) == layers
    assert blocks[-1] == "mid_block"
    assert list(model.widths().values()) == [
        w for count, w in zip(layers, widths, strict=True) for _ in range(count)
    ]
    assert model.latent_shape == latent
    assert getattr(model, "pooled_width", None) == pooled
    assert model.distilled == (name == "LCM Dreamshaper v7")
    biased = {layer.bias is not None for layer in model.value_layers.values()}
    assert biased == {adapter is DeepFloyd}


def test_layer_names_of_sdxl() -> None:
    with torch.device("meta"):
        model = StableDiffusionXL(SimpleNamespace(unet=UNet2DConditionModel(**SDXL)))
    names = list(model.value_layers)
    assert names[0] == "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    assert names[4] == "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_v"
    assert names[24:] == [
        f"mid_block.attentions.0.transformer_blocks.{k}.attn2.to_v" for k in range(10)
    ]
    assert len(names) == 34
    assert len(model.cross_attentions) == 34 + 3 * 10 + 3 * 2
    assert sum(model.widths().values()) == 4 * 640 + 30 * 1280
