"""Pipelines that findnemo cannot work on are refused when they are loaded, with what does not fit
(`check_fit`) and the way out.
"""

from __future__ import annotations

import pytest
from _odd_pipelines import clip, configured, sd, tokenizing, with_parts
from _tiny import tiny_clip, tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_pixart, tiny_sd3, tiny_t5
from _tiny_unets import tiny_if, tiny_lcm, tiny_sdxl
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    IPNDMScheduler,
    RePaintScheduler,
    StableDiffusionImg2ImgPipeline,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)
from transformers import CLIPTextModelWithProjection

import findnemo
from findnemo.errors import FindnemoWarning, ModelError

SCHEDULERS = {
    "flow on a u-net": (
        tiny_pipeline,
        FlowMatchEulerDiscreteScheduler(),
        "goes by a flow, and its denoiser predicts noise",
    ),
    "flow on if": (
        tiny_if,
        FlowMatchEulerDiscreteScheduler(),
        "goes by a flow, and its denoiser predicts noise",
    ),
    "flow on pixart": (
        tiny_pixart,
        FlowMatchEulerDiscreteScheduler(),
        "goes by a flow, and its denoiser predicts noise",
    ),
    "flow sigmas": (tiny_pipeline, UniPCMultistepScheduler(use_flow_sigmas=True), "goes by a flow"),
    "no alphas": (
        tiny_pipeline,
        IPNDMScheduler(),
        "IPNDMScheduler without alphas_cumprod and prediction_type",
    ),
    "no prediction type": (tiny_pipeline, RePaintScheduler(), "without prediction_type"),
    "no order": (tiny_pipeline, UnCLIPScheduler(), "without order"),
    "few steps": (
        tiny_pipeline,
        DDPMScheduler(num_train_timesteps=20),
        "cannot give timesteps of 50 steps",
    ),
    "noise on sd3": (
        tiny_sd3,
        DDIMScheduler(),
        "DDIMScheduler, and its transformer goes by a flow",
    ),
    "noise on flux": (
        tiny_flux,
        DDIMScheduler(),
        "DDIMScheduler, and its transformer goes by a flow",
    ),
    "no sigmas on flux": (
        tiny_flux,
        FlowMatchHeunDiscreteScheduler(),
        "give a FlowMatchEulerDiscreteScheduler",
    ),
}
SIZES = {
    repr(size): (
        configured(tiny_pipeline, "unet", sample_size=size),
        "sample_size of its unet is .*set it to that of its training",
    )
    for size in (None, "16", 16.0, 0, -8, [16], [16, None], True)
}
ENCODERS = {
    "sdxl not projecting": (with_parts(tiny_sdxl, text_encoder_2=lambda p: clip(32)), "give a CLIPTextModelWithProjection"),
    "sdxl lengths": (tokenizing(tiny_sdxl, "tokenizer_2", model_max_length=40), "77 and 40 tokens.*set model_max_length of both to 40"),
    "sd projecting": (with_parts(tiny_pipeline, text_encoder=lambda p: clip(32, 32)), "give a CLIPTextModel$"),
    "flux projecting": (with_parts(tiny_flux, text_encoder=lambda p: tiny_clip(CLIPTextModelWithProjection)), "give a CLIPTextModel$"),
}  # fmt: skip
OTHERS = {
    "17": (configured(tiny_pipeline, "unet", sample_size=17), "images of 34 x 34 pixels.*multiples of 8"),
    "sd3": (with_parts(tiny_sd3, default_sample_size=None), "default_sample_size of the pipeline is None"),
    "flux": (with_parts(tiny_flux, default_sample_size=17), "multiples of 4"),
    "scale": (configured(tiny_pipeline, "vae", scaling_factor=None), "scaling_factor None"),
    "classes": (sd(num_class_embeds=10), "wants a class in addition to the caption"),
    "added": (sd(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=72), "addition_embed_type 'text_time'"),
    "only cross": (sd(only_cross_attention=True), "captions in all its attention"),
    "sdxl unet of sd": (with_parts(tiny_sdxl, unet=lambda p: tiny_pipeline(cross_attention_dim=48).unet), "addition_embed_type None"),
    "lcm without guidance": (with_parts(tiny_lcm, unet=lambda p: tiny_pipeline().unet), "time_cond_proj_dim None"),
    "no padding": (tokenizing(tiny_pipeline, pad_token=None), r"set pipeline\.tokenizer\.pad_token"),
    "two tokens": (tokenizing(tiny_pipeline, model_max_length=2), "all captions would be the same"),
    "endless": (with_parts(tiny_pipeline, tokenizer=lambda p: tiny_pixart().tokenizer, text_encoder=lambda p: tiny_t5(32)), "states no model_max_length"),
    "img2img": (lambda: StableDiffusionImg2ImgPipeline(**tiny_pipeline().components, requires_safety_checker=False), "not supported"),
    "no pipeline": (lambda: tiny_pipeline().unet, "UNet2DConditionModel is not supported"),
}  # fmt: skip


REFUSED = (
    {n: (with_parts(m, scheduler=s), why) for n, (m, s, why) in SCHEDULERS.items()}
    | ENCODERS
    | SIZES
    | OTHERS
)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", REFUSED)
def test_a_pipeline_that_cannot_be_worked_on_is_refused_when_it_is_loaded(name):
    make, message = REFUSED[name]
    pipeline = make()
    with pytest.raises(ModelError, match=message):
        findnemo.load(pipeline)


def test_a_tokenizer_folder_without_its_vocabulary_is_refused(copied):
    for file in (copied / "tokenizer").iterdir():
        file.unlink()
    with pytest.warns(FindnemoWarning), pytest.raises(ModelError, match="vocabulary is missing"):
        findnemo.load(copied)
