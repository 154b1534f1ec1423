"""The published U-Nets at full size, from their configurations and without weights: which layers,
how many neurons, what travels with a prompt.

Sizes are published as 860 M, 866 M, 2.6 B, 400 M and 4.3 B parameters.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from _published_unets import IF_M, IF_XL, LCM, SD14, SD21, SDXL
from diffusers import UNet2DConditionModel

from findnemo.models import DeepFloyd, Model, StableDiffusion, StableDiffusionXL

# adapter, configuration, parameters in millions, value layers per block, their widths, latent,
# width of the pooled embedding
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
