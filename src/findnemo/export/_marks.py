"""Marks that tell user interfaces and trainers what a single file predicts, and which model it is.

ComfyUI and Forge look for tensors without values, `v_pred` and `ztsnr`, in SDXL files.
AUTOMATIC1111, Forge and diffusers (`original_config`) look for a configuration of the original code
next to a file of Stable Diffusion 1.x and 2.x. kohya's scripts and others read metadata
(https://github.com/Stability-AI/ModelSpec). docs/export.md says who reads what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import floordiv
from typing import Any

from findnemo.errors import ModelError
from findnemo.export._original import family
from findnemo.files.tensors import UNSEALED
from findnemo.models.marks import PREDICTION, READ, STATED, ZERO_SNR
from findnemo.runtime.notices import notice

SCHEDULE = {  # the noise schedule that all of these programs assume
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "trained_betas": None,
}
SHORT = {"epsilon": "epsilon", "v_prediction": "v"}  # the terms of ModelSpec and ComfyUI
PARAMETERIZATION = {"epsilon": "eps", "v_prediction": "v"}  # the terms of the original code
ORIGINAL_CODE = "https://github.com/Stability-AI/generative-models"
ARCHITECTURES = {  # ModelSpec's names
    ("1", "epsilon"): "stable-diffusion-v1",
    ("1", "v_prediction"): "stable-diffusion-v1",
    ("2", "epsilon"): "stable-diffusion-v2-512",
    ("2", "v_prediction"): "stable-diffusion-v2-768-v",
    ("xl", "epsilon"): "stable-diffusion-xl-v1-base",
    ("xl", "v_prediction"): "stable-diffusion-xl-v1-base",
}
KOHYA = {"1": "sd_v1", "2": "sd_v2", "xl": "sdxl_base_v1-0"}
OURS = "# made by findnemo: "  # beginning of a configuration next to a file that may be replaced
SCALING = {"1": 0.18215, "2": 0.18215, "xl": 0.13025}  # scaling of latents that programs assume
CHANNELS = 320  # of the U-Net's first block, by which ComfyUI knows all three families
TEXT = {"1": 768, "2": 1024, "xl": 2048}  # width of the text that ComfyUI knows each family by


def prediction(pipeline: Any) -> tuple[str, bool]:
    """What a pipeline predicts, and whether its last timestep is pure noise.

    Raises ModelError for a prediction that a single file cannot declare.
    """
    config = pipeline.scheduler.config
    predicts = "edm" if "sigma_data" in config else config.get(PREDICTION)
    if predicts not in READ:
        raise ModelError(
            f"no single file can say that it predicts {predicts!r}: export a checkpoint directory"
        )
    return predicts, bool(config.get(ZERO_SNR, False))


def check_schedule(pipeline: Any) -> None:
    """Raises ModelError for a noise schedule that a single file cannot carry and that programs
    would replace by the usual one.
    """
    config = pipeline.scheduler.config
    for name, usual in SCHEDULE.items():
        if config.get(name, usual) != usual:
            raise ModelError(
                f"the scheduler's {name} is {str(config[name])[:40]}, and a single file cannot say"
                f" so: user interfaces take {usual}; export a checkpoint directory"
            )


def unusual_sizes(pipeline: Any) -> list[str]:
    """The sizes of a pipeline that are not those of its family, so that user interfaces do not
    recognize its single file.
    """
    config = pipeline.unet.config
    channels = config.block_out_channels[0]
    text = config.cross_attention_dim
    usual = TEXT[family(pipeline)]
    told = [f"the U-Net begins with {channels} channels, not {CHANNELS}"] * (channels != CHANNELS)
    return told + [f"the text is {text} wide, not {usual}"] * (text != usual)


def tell_limits_of_lora(pipeline: Any) -> None:
    """Warn of a LoRA on a model that user interfaces do not load."""
    if told := unusual_sizes(pipeline):
        notice(
            "ComfyUI and other user interfaces will not load the model that this LoRA belongs to,"
            " because they know the sizes of Stable Diffusion 1.x, 2.x and SDXL only"
            f" ({'; '.join(told)}); diffusers reads it"
        )


def tell_limits(pipeline: Any) -> None:
    """Warn of what user interfaces cannot do with the single file of a pipeline."""
    if told := unusual_sizes(pipeline):
        notice(
            "ComfyUI and other user interfaces will not load this file, because they know the"
            f" sizes of Stable Diffusion 1.x, 2.x and SDXL only ({'; '.join(told)}); findnemo"
            " reads it with this model's configuration (--config), diffusers too (config=); for"
            " diffusers alone, --to checkpoint is simpler"
        )
    else:
        _tell_scaling(pipeline)


def _tell_scaling(pipeline: Any) -> None:
    """Warn that a single file does not carry the scaling of latents, if it is not the one that
    programs assume.
    """
    config = pipeline.vae.config
    usual = SCALING[family(pipeline)]
    scaling = config.get("scaling_factor", usual)
    shift = config.get("shift_factor")
    if abs(scaling - usual) > 1e-6 or shift:
        shifts = f" and shifts them by {shift:g}" if shift else ""
        node = f"put a LatentMultiply node ({usual / scaling:.4g}) before VAE Decode in ComfyUI"
        notice(
            f"the autoencoder scales latents by {scaling:g}{shifts}, which a single file cannot"
            f" say: programs take {usual:g}; {'' if shift else f'{node}, '}give findnemo this"
            " model's configuration (--config) and diffusers too (config=), or export a checkpoint"
            " directory"
        )


def node_of_comfyui(pipeline: Any) -> str | None:
    """The node that ComfyUI needs behind the single file of a pipeline, because it does not read
    its prediction there.
    """
    predicts, zero = prediction(pipeline)
    kind = family(pipeline)
    reads = kind == "xl" or (not zero and (kind == "2" or predicts == "epsilon"))
    if reads or unusual_sizes(pipeline):
        return None
    sampling = {"epsilon": "eps"}.get(predicts, predicts)
    return f"ModelSamplingDiscrete ({sampling}{', zsnr' if zero else ''})"


def tensors(pipeline: Any) -> list[str]:
    """Names of the valueless tensors that a single file carries as marks."""
    predicts, zero = prediction(pipeline)
    return ["v_pred"] * (predicts == "v_prediction") + ["ztsnr"] * zero


def spec(pipeline: Any, title: str, adapter: str = "") -> dict[str, str]:
    """ModelSpec metadata, without its hash yet, and ComfyUI's `predict_key`.

    `adapter`: "/lora" for a LoRA.
    """
    predicts, _ = prediction(pipeline)
    kind = family(pipeline)
    size = pipeline.unet.config.sample_size
    sides = (size, size) if isinstance(size, int) else size or (0, 0)
    height, width = (side * pipeline.vae_scale_factor for side in sides)
    original = kind == "xl" or not adapter
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": ARCHITECTURES[kind, predicts] + adapter,
        "modelspec.implementation": ORIGINAL_CODE if original else "diffusers",
        "modelspec.title": title,
        **({"modelspec.resolution": f"{width}x{height}"} if width else {}),
        "modelspec.prediction_type": SHORT[predicts],
        "modelspec.predict_key": SHORT[predicts],
        "modelspec.hash_sha256": UNSEALED["modelspec.hash_sha256"],
    }


def kohya(pipeline: Any) -> dict[str, str]:
    """Metadata of kohya's scripts that name the base model of a LoRA."""
    predicts, zero = prediction(pipeline)
    kind = family(pipeline)
    return {
        "ss_base_model_version": KOHYA[kind] + "_v" * (kind != "xl" and predicts == "v_prediction"),
        "ss_v2": str(kind == "2"),
        "ss_v_parameterization": str(predicts == "v_prediction"),
        "ss_zero_terminal_snr": str(zero),
        "sshs_model_hash": UNSEALED["sshs_model_hash"],
    }


def completed(metadata: Mapping[str, str], pipeline: Any) -> dict[str, str]:
    """The metadata of a loaded file, completed by the pipeline's prediction if it is missing."""
    predicts, _ = prediction(pipeline)
    marks = {name: SHORT[predicts] for name in STATED if name.startswith("modelspec.")}
    return {**metadata, **{name: mark for name, mark in marks.items() if name not in metadata}}


def configuration(pipeline: Any) -> str | None:
    """The configuration of the original code to put next to a file whose keys do not show its
    prediction: 1.x with v, and all 2.x.

    It is JSON, which every reader of YAML reads, and begins with OURS.
    """
    predicts, _ = prediction(pipeline)
    kind = family(pipeline)
    if kind == "xl" or (kind == "1" and predicts == "epsilon"):
        return None
    model = json.dumps({"model": _model(pipeline, predicts, kind)}, indent=2)
    return f"{OURS}the configuration of the model file of the same name\n{model}\n"


def _model(pipeline: Any, predicts: str, kind: str) -> dict[str, Any]:
    vae = pipeline.vae.config
    encoder: dict[str, Any] = {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder"}
    if kind == "2":
        encoder["target"] = "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"
        encoder["params"] = {"freeze": True, "layer": "penultimate"}
    return {
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "parameterization": PARAMETERIZATION[predicts],
            "linear_start": SCHEDULE["beta_start"],
            "linear_end": SCHEDULE["beta_end"],
            "timesteps": SCHEDULE["num_train_timesteps"],
            "first_stage_key": "jpg",
            "cond_stage_key": "txt",
            "cond_stage_trainable": False,
            "conditioning_key": "crossattn",
            "image_size": pipeline.unet.config.sample_size,
            "channels": pipeline.unet.config.in_channels,
            "scale_factor": vae.scaling_factor,
            "use_ema": False,
            "unet_config": {
                "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                "params": _unet(pipeline.unet.config),
            },
            "first_stage_config": {
                "target": "ldm.models.autoencoder.AutoencoderKL",
                "params": {
                    "embed_dim": vae.latent_channels,
                    "ddconfig": _vae(vae),
                    "lossconfig": {"target": "torch.nn.Identity"},
                },
            },
            "cond_stage_config": encoder,
        },
    }


def _vae(config: Any) -> dict[str, Any]:
    widths = config.block_out_channels
    return {
        "double_z": True,
        "z_channels": config.latent_channels,
        "resolution": 256,
        "in_channels": config.in_channels,
        "out_ch": config.out_channels,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config.layers_per_block,
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def _unet(config: Any) -> dict[str, Any]:
    widths = list(config.block_out_channels)
    heads = config.attention_head_dim  # in diffusers the number of heads, despite its name
    per_block = [heads] * len(widths) if isinstance(heads, int) else list(heads)
    split = {"num_heads": per_block[0]}
    if len(set(per_block)) > 1:
        split = {"num_head_channels": min(map(floordiv, widths, per_block))}
    attends = [kind.startswith("CrossAttn") for kind in config.down_block_types]
    return {
        "image_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": widths[0],
        "attention_resolutions": [2**i for i, is_so in enumerate(attends) if is_so],
        "num_res_blocks": config.layers_per_block,
        "channel_mult": [width // widths[0] for width in widths],
        **split,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": config.use_linear_projection,
        "transformer_depth": config.transformer_layers_per_block,
        "context_dim": config.cross_attention_dim,
        "use_checkpoint": False,
        "legacy": False,
    }
