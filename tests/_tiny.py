"""Small pipelines made of the real classes with random weights, for tests."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# options of `tiny_pipeline` for two value layers of 8 neurons
SMALL = {
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def tiny_tokenizer(length: int = 77) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer without merges: every character is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={w: k for k, w in enumerate(words)}, merges=[], model_max_length=length
    )


def tiny_clip(kind: Any = CLIPTextModel, width: int = 32, **options: Any) -> Any:
    """A CLIP text encoder for the captions of `tiny_tokenizer`; what it pools has its `width`
    too, unless options say otherwise.
    """
    tokenizer = tiny_tokenizer()
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "projection_dim": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return kind(CLIPTextConfig(**config | options)).eval()


def schedule(**options: object) -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **options,
    )


def tiny_pipeline(
    prediction_type: str = "epsilon", size: int = 16, seed: int = 0, **unet_options: object
) -> StableDiffusionPipeline:
    """A StableDiffusionPipeline with Stable Diffusion's layout: 7 value layers of widths
    16, 16, 32, 32, 32, 32, 32.
    """
    torch.manual_seed(seed)
    options = {
        "sample_size": size,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32, 32, 32),
        "layers_per_block": 2,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    }
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=2 * size,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=tiny_clip(projection_dim=512),
        tokenizer=tiny_tokenizer(),
        unet=UNet2DConditionModel(**{**options, **unet_options}).eval(),
        scheduler=schedule(prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.vae.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def made_loud(model: Any) -> Any:
    """The model, in which captions now differ and neurons matter."""
    model.denoiser.conv_out.weight *= 100
    for layer in model.value_layers.values():
        layer.weight *= 1000
    return model
