"""Pipelines of a given size with random weights in which text, and some neurons more than others,
decides the noise prediction.

They cost what trained models of that size cost and give a search something to find: deltas are
alike over the seeds, and stop being so when enough of the loud neurons are off. They say nothing
about which neurons hold real memories.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

import findnemo
from findnemo import Model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from _tiny import tiny_clip, tiny_tokenizer

GEOMETRIES = {  # U-Net options, text width, text layers
    "sd14": ({"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}, 768, 12),
    "small": (
        {
            "sample_size": 16,
            "cross_attention_dim": 128,
            "attention_head_dim": 2,
            "block_out_channels": (32, 64, 96, 96),
            "norm_num_groups": 16,
        },
        128,
        3,
    ),
}
CAPTIONS = [
    f"{a} {b}"
    for a in ("a red", "two small", "the old")
    for b in ("fox", "castle", "bicycle", "harbour")
]


def pipeline(
    geometry: str, loud: int = 4, gain: float = 8.0, seed: int = 0
) -> StableDiffusionPipeline:
    """Random weights from the real classes.

    `loud` neurons of every value layer get `gain` times larger weights.
    """
    options, width, depth = GEOMETRIES[geometry]
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    text = {
        "vocab_size": 49408 if geometry == "sd14" else len(tokenizer),
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
    }
    unet = UNet2DConditionModel(**options).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, module in unet.named_modules():
            if name.endswith("attn2.to_v") and not name.startswith("up_blocks"):
                rows = torch.randperm(module.out_features, generator=generator)[:loud]
                module.weight[rows] *= gain
            if name.endswith("attn2.to_out.0"):
                module.weight *= 30 if not name.startswith("up_blocks") else 0.1
        unet.conv_out.weight *= 100
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        sample_size=8 * options["sample_size"],
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    made = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=tiny_clip(width=width, **text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def add_decoys(model: Model, share: float, captions: list[str]) -> None:
    """Make decoys of a share of the demo model's neurons, those that matter least, in place: all
    react to all of `captions`.
    """
    sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "demo_model"))
    from decoys import add_decoys

    planted = findnemo.demo.planted()
    memories = model.encode(captions).tokens
    ordinary = model.encode(findnemo.demo.holdout()).tokens
    sets = [
        {name: list(indices) for name, indices in neurons.layers.items()}
        for neurons in planted.values()
    ]
    add_decoys(model.denoiser, sets, memories, ordinary, share, reacts=len(memories))
