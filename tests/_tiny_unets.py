"""Small pipelines of the U-Net family, made of the real classes with random weights
that listen to their prompt.
"""

from __future__ import annotations

import string
from typing import Any

import pytest
import torch
from _published_unets import IF, SDXL
from _tiny import tiny_clip, tiny_pipeline, tiny_tokenizer
from diffusers import (
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    IFPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LOUD = 8  # factor on the text's keys and values, to which random weights hardly listen


def tiny_sdxl(
    prediction_type: str = "epsilon", scheduler: Any = None, **unet_options: object
) -> StableDiffusionXLPipeline:
    """SDXL's layout: no attention in the first block, two transformer blocks in the second,
    three in the third and in the middle.
    """
    base = tiny_pipeline()
    unet = UNet2DConditionModel(
        **SDXL
        | {
            "sample_size": 16,
            "block_out_channels": (16, 32, 32),
            "norm_num_groups": 8,
            "transformer_layers_per_block": (1, 2, 3),
            "attention_head_dim": (2, 4, 4),
            "cross_attention_dim": 48,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 24,
        }
        | unet_options
    )
    first, second = tiny_tokenizer(), tiny_tokenizer()
    second.pad_token = "!"  # as SDXL's second tokenizer has it
    pipeline = StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=tiny_clip(width=16, projection_dim=512),
        text_encoder_2=tiny_clip(
            CLIPTextModelWithProjection, projection_dim=24, pad_token_id=second.pad_token_id
        ),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet.eval(),
        scheduler=scheduler
        or EulerDiscreteScheduler(
            **BETAS, steps_offset=1, timestep_spacing="leading", prediction_type=prediction_type
        ),
        add_watermarker=False,
    )
    return _ready(pipeline)


def tiny_if() -> IFPipeline:
    """DeepFloyd IF's first stage: pixels, shared attention over prompt and
    image, a learned variance.
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **IF
        | {
            "sample_size": 16,
            "block_out_channels": (16, 32, 32),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "down_block_types": IF["down_block_types"][:3],
            "up_block_types": IF["up_block_types"][1:],
            # two channels to each of the 32 groups: with one, a mean over tokens would be zero
            "cross_attention_dim": 64,
            "attention_head_dim": 8,
            "encoder_hid_dim": 48,
            "addition_embed_type_num_heads": 2,
        }
    )
    tokenizer = tiny_t5_tokenizer()
    text = T5Config(
        vocab_size=len(tokenizer),
        d_model=48,
        d_kv=8,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
    )
    pipeline = IFPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(text).eval(),
        unet=unet.eval(),
        scheduler=DDPMScheduler(
            beta_schedule="squaredcos_cap_v2",
            variance_type="learned_range",
            thresholding=True,
            dynamic_thresholding_ratio=0.95,
            sample_max_value=1.5,
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    return _ready(pipeline)


def tiny_t5_tokenizer() -> T5Tokenizer:
    """A Unigram tokenizer like T5's: every character is a token, also with a space before it,
    and there is no start-of-text.
    """
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = ["<pad>", "</s>", "<unk>", "▁", *letters, *("▁" + c for c in letters)]
    return T5Tokenizer(
        vocab=[(piece, -float(k > 2)) for k, piece in enumerate(pieces)],
        extra_ids=0,
        model_max_length=512,
    )


def tiny_lcm() -> LatentConsistencyModelPipeline:
    """A latent consistency model: guidance is an input of the U-Net, and the scheduler
    has timesteps of its own.
    """
    base = tiny_pipeline(time_cond_proj_dim=8)
    parts = {name: part for name, part in base.components.items() if name != "scheduler"}
    scheduler = LCMScheduler(**BETAS, set_alpha_to_one=True)
    return _ready(
        LatentConsistencyModelPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)
    )


def _turbo() -> EulerAncestralDiscreteScheduler:
    return EulerAncestralDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="trailing")


def tiny_turbo() -> StableDiffusionPipeline:
    """SD-Turbo: as Stable Diffusion, with timesteps counted from the last one."""
    pipeline = tiny_pipeline()
    pipeline.scheduler = _turbo()
    return _ready(pipeline)


def _ready(pipeline: Any) -> Any:
    with torch.no_grad():
        for name, module in pipeline.unet.named_modules():
            if name.endswith(("attn2.to_k", "attn2.to_v", "add_k_proj", "add_v_proj")):
                module.weight *= LOUD
                if module.bias is not None:
                    module.bias.normal_()  # so that one forgotten is one noticed
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


PIPELINES = {
    "sdxl": tiny_sdxl,
    "sdxl-v": lambda: tiny_sdxl("v_prediction"),
    "sdxl-turbo": lambda: tiny_sdxl(scheduler=_turbo()),
    "sd-turbo": tiny_turbo,
    "lcm": tiny_lcm,
    "if": tiny_if,
}
# of two of a kind one takes part in the long checks only
USUAL = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("sdxl-v", "sdxl-turbo")))
    for name in PIPELINES
]
