"""Tiny pipelines of the families that have an original layout, as single files and
directories, and runs made by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _tiny
import torch
from _tiny import tiny_clip, tiny_pipeline, tiny_tokenizer
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection

import findnemo
from findnemo import NeuronSet
from findnemo.export._original import original_tensors
from findnemo.models import Model, StableDiffusion
from findnemo.models.loading import ADAPTERS
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.runs.trust import vouch
from findnemo.settings import PAPER

# families that single files hold, and what findnemo calls them
FAMILIES = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}
SMALL = _tiny.SMALL | {"block_out_channels": (16, 32)}


def tiny_family(name: str, seed: int = 0) -> Any:
    """A tiny Stable Diffusion 1.x or 2.x or SDXL pipeline."""
    if name == "sd1":
        return tiny_pipeline(seed=seed, **SMALL)
    if name == "sd2":
        pipeline = tiny_pipeline(
            "v_prediction",
            seed=seed,
            use_linear_projection=True,
            **{**SMALL, "layers_per_block": 2},
        )
        pipeline.text_encoder = tiny_clip(projection_dim=512, hidden_act="gelu")
        return pipeline
    return tiny_xl(seed)


def tiny_xl(seed: int = 0) -> StableDiffusionXLPipeline:
    base = tiny_pipeline(seed=seed, **SMALL)
    base.vae.register_to_config(scaling_factor=0.13025)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=2,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=32 + 24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=tiny_clip(),
        text_encoder_2=tiny_clip(CLIPTextModelWithProjection, 24, hidden_act="gelu"),
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_tokenizer(),
        unet=unet.eval(),
        scheduler=base.scheduler,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def loud(pipeline: Any, neurons: int = 3) -> tuple[Any, NeuronSet]:
    """The pipeline with a few neurons of its first and last value layer on which much depends."""
    layers = as_model(pipeline).value_layers
    chosen = NeuronSet(
        {name: range(1, 1 + neurons) for name in (next(iter(layers)), list(layers)[-1])}
    )
    with torch.no_grad():
        for name, indices in chosen.layers.items():
            layers[name].weight[list(indices)] *= 200
    return pipeline, chosen


def as_model(pipeline: Any, source: str = "live") -> Model:
    """A model for edits; of SDXL too, of whose text encoding edits ask nothing."""
    return ADAPTERS.get(type(pipeline).__name__, StableDiffusion)(pipeline, source)


def save_file(
    pipeline: Any,
    path: Path,
    more: dict[str, torch.Tensor] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """The whole pipeline in one file in the original layout, written with
    the safetensors library.
    """
    from safetensors.torch import save_file

    tensors = {
        name: lazy.make().detach().contiguous().clone()
        for name, lazy in original_tensors(pipeline).items()
    }
    save_file(tensors | (more or {}), path, metadata or {"format": "pt"})
    return path


def make_run(
    path: Path,
    model: Model,
    captions: dict[str, NeuronSet],
    out_of_reach: tuple[str, ...] = (),
    more: dict[str, Any] | None = None,
) -> Path:
    """A finished run with hand-made results: captions with the neurons found for them; those
    without are not memorized. `more`: further values of the search.
    """
    settings = {
        "model": model.fingerprint,
        "identity": model.identity.to_json(),
        "dtype": "float32",
        "calibration": PAPER.to_json(),
        "tau": 0.4,
        "search": "gradient",
        "images": 2,
        "image_settings": {"steps": 2, "guidance": 7.0, "seed": 0},
        "judges": {},
    }
    with Run.create(path, settings) as run:
        run.set_meta("source", model.source)
        run.set_meta("source_options", model.options)
        run.set_meta("versions", {"findnemo": findnemo.__version__})
        run.set_meta("quality", {"prompts": 3, "failed": 0, "neurons": 6, "pixel_change": 0.0123})
        ids = run.add(Prompt(text, row) for row, text in enumerate(captions, 1))
        for number, (text, neurons) in zip(ids, captions.items(), strict=True):
            run.record(
                number,
                "detect",
                {
                    "memorized": bool(len(neurons)),
                    "score": 0.9 if len(neurons) else 0.1,
                    "tau": 0.4,
                },
                1,
            )
            if len(neurons):
                reached = text not in out_of_reach
                found = {
                    "neurons": neurons.to_json(),
                    "reached": reached,
                    "score_before": 0.9,
                    "score_after": 0.2,
                }
                run.record(
                    number,
                    "localize",
                    found | {"memorized": True, "evaluations": 5} | (more or {}).get(text, {}),
                    1,
                )
                checked = {
                    "score_before": 0.8,
                    "score_after": 0.25,
                    "same_seed": 0.3,
                    "copies_before": 1.0,
                    "copies_after": 0.0 if reached else 1.0,
                }
                run.record(number, "verify", checked, 1)
        vouch(run)
    return path
