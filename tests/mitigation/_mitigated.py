"""A model and pipeline calls for the tests of mitigations."""

from __future__ import annotations

import copy
from functools import cache

import torch
from _tiny import tiny_pipeline
from _tiny_files import SMALL
from torch import Tensor

from findnemo import NeuronSet, load
from findnemo.mitigation import Case
from findnemo.models import Model
from findnemo.seeds import sample_seed

DOWN = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
NEURONS = NeuronSet({MID: [0, 3, 5, 9], DOWN: [2, 7]})
PROMPT = "a cat"
OTHER = "no dogs here"
CASE = Case(PROMPT, NEURONS, reference=("a dog",))


def small_model(prediction_type: str = "epsilon") -> Model:
    """Value layers of widths 16 and 32, quick, and listening to its prompt as random weights
    hardly do. A fresh one each time.
    """
    return copy.deepcopy(_built(prediction_type))


@cache
def _built(prediction_type: str) -> Model:
    model = load(tiny_pipeline(prediction_type, **SMALL))
    with torch.no_grad():
        for name, module in model.denoiser.named_modules():
            if name.endswith(("attn2.to_v", "attn2.to_k")):
                module.weight *= 8
    return model


def call(
    model: Model,
    prompts: str | list[str] = PROMPT,
    images: int = 1,
    guidance: float = 3.0,
    **options: object,
) -> Tensor:
    """Finished latents (prompts x images, C, H, W) of a whole call; image k of a prompt
    starts from its own noise.
    """
    prompts = [prompts] if isinstance(prompts, str) else prompts
    generators = [
        torch.Generator().manual_seed(sample_seed(0, p, k)) for p in prompts for k in range(images)
    ]
    options = {"num_inference_steps": 2, "output_type": "latent", "generator": generators} | options
    return model.pipeline(
        prompts, num_images_per_prompt=images, guidance_scale=guidance, **options
    ).images


def hooks(model: Model) -> list:
    return [
        h
        for m in model.denoiser.modules()
        for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    ]
