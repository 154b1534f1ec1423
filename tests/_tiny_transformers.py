"""Small pipelines of diffusion transformers, made of the real classes with
random weights, for tests.
"""

from __future__ import annotations

import string
from typing import Any

import pytest
import torch
from _tiny import tiny_clip, tiny_tokenizer
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SIZE = 16  # of latents; PixArt's pipelines know 32 at least


def tiny_t5_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer without merges: every character is a token."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=special + [(c, -3.0) for c in string.printable.strip()], extra_ids=0)


def tiny_t5(width: int) -> T5EncoderModel:
    sizes: dict[str, Any] = {"d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(
        T5Config(vocab_size=len(tiny_t5_tokenizer()), d_model=width, **sizes)
    ).eval()


def tiny_vae(levels: int, **options: Any) -> AutoencoderKL:
    """A decoder that enlarges by 2 ** (levels - 1)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        **options,
    ).eval()


def varied(network: torch.nn.Module) -> torch.nn.Module:
    """The same network with biases that are not zero, and with outputs that depend on the text
    as much as on the latents.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("attn2.to_v.bias", "add_v_proj.bias")):
                parameter.normal_()
            if name.endswith(("attn2.to_v.weight", "add_v_proj.weight")):
                parameter.mul_(5)
    return network.eval()


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(pipeline, FluxPipeline):
        pipeline.default_sample_size = SIZE  # 128 in every FluxPipeline, whatever its transformer
    return pipeline


def tiny_pixart(kind: type[DiffusionPipeline] = PixArtAlphaPipeline, size: int = 32) -> Any:
    """PixArt with 3 blocks of width 24; latents of 32 x 32, or of 128 x 128 with the resolution
    as a condition (alpha's 1024 model).
    """
    torch.manual_seed(0)
    network = PixArtTransformer2DModel(
        sample_size=size,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=320,
        norm_num_groups=4,
    )
    scheduler = DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02)
    return quiet(kind(tiny_t5_tokenizer(), tiny_t5(320), tiny_vae(4), varied(network), scheduler))


def tiny_sd3(t5: bool = True, **scheduler: Any) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 with 3 blocks of width 16, the first with a second attention."""
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=SIZE,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=16,
        pooled_projection_dim=64,
        pos_embed_max_size=SIZE,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=varied(network),
        scheduler=FlowMatchEulerDiscreteScheduler(**({"shift": 3.0} | scheduler)),
        vae=tiny_vae(2, scaling_factor=1.5, shift_factor=0.06),
        text_encoder=tiny_clip(CLIPTextModelWithProjection),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=tiny_clip(CLIPTextModelWithProjection),
        tokenizer_2=tiny_tokenizer(),
        text_encoder_3=tiny_t5(64) if t5 else None,
        tokenizer_3=tiny_t5_tokenizer() if t5 else None,
    )
    return quiet(pipeline)


def tiny_flux(guidance_embeds: bool = True) -> FluxPipeline:
    """FLUX.1 with 2 double blocks and a single one of width 32; dev's schedule
    and guidance, or schnell's.
    """
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    dev = {"shift": 3.0, "use_dynamic_shifting": True}
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(dev if guidance_embeds else {})),
        vae=tiny_vae(2, scaling_factor=0.36, shift_factor=0.12),
        text_encoder=tiny_clip(CLIPTextModel),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=tiny_t5(64),
        tokenizer_2=tiny_t5_tokenizer(),
        transformer=varied(network),
    )
    return quiet(pipeline)


PIPELINES = {
    "pixart-alpha": tiny_pixart,
    "pixart-sigma": lambda: tiny_pixart(PixArtSigmaPipeline),
    "sd3": tiny_sd3,
    "sd3-without-t5": lambda: tiny_sd3(t5=False),
    "flux-dev": tiny_flux,
    "flux-schnell": lambda: tiny_flux(guidance_embeds=False),
}
# of two of a kind one takes part in the long checks only
USUAL = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("pixart-sigma", "sd3-without-t5")))
    for name in PIPELINES
]
