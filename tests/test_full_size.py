"""Stable Diffusion v1.4 at full size, from its configuration, with random weights:
the whole path on the CPU.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from _tiny import tiny_tokenizer
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import findnemo
from findnemo.edits import LORA_FILE
from findnemo.settings import settings_for


def sd14_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def sd14_pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        **special,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=sd14_unet().eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_value_layers_of_sd14_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        unet = sd14_unet()
    layers = {
        n: m.out_features
        for n, m in unet.named_modules()
        if n.endswith("attn2.to_v") and not n.startswith("up_")
    }
    assert list(layers.values()) == [320, 320, 640, 640, 1280, 1280, 1280]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_sd14_goes_through_the_whole_path(variant: str, tmp_path) -> None:
    model = findnemo.load(sd14_pipeline())
    assert list(model.widths().values()) == [320, 320, 640, 640, 1280, 1280, 1280]
    assert model.timesteps(50)[:2] == [981, 961]
    settings = settings_for(variant, samples=3)
    calibration = findnemo.calibrate(model, ["a cat", "a dog"], settings=settings)
    calibration = dataclasses.replace(calibration, tau=0.0)
    assert findnemo.score(model, "a cat", settings=settings) == pytest.approx(
        float(calibration.scores[0]), abs=1e-4
    )
    neurons = findnemo.NeuronSet({name: [0, 7] for name in model.widths()})
    with findnemo.deactivate(model, neurons):
        edited = findnemo.generate(model, "a cat", [0], findnemo.ImageSettings(1, 2.0))
    pruned = findnemo.prune(model, neurons)
    assert all(not m.weight[[0, 7]].any() for m in findnemo.load(pruned).value_layers.values())
    again = findnemo.generate(findnemo.load(pruned), "a cat", [0], findnemo.ImageSettings(1, 2.0))
    assert edited[0].tobytes() == again[0].tobytes()
    assert findnemo.save_lora(model, neurons, tmp_path).name == LORA_FILE
