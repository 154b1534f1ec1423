"""Names and shapes of Stable Diffusion 1.x, 2.x and SDXL weights in their original layout, which
user interfaces read.

This is the inverse of what diffusers does when it loads a single file. A component of a pipeline
becomes a mapping: name in the original layout -> tensor, made when it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import ModelError
from findnemo.files.tensors import Lazy
from findnemo.models import Model
from findnemo.models._unet_names import unet_name

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "cond_stage_model.transformer."  # Stable Diffusion 1.x
OPEN_CLIP_H = "cond_stage_model.model."  # 2.x
SDXL_CLIP_L = "conditioner.embedders.0.transformer."
SDXL_OPEN_CLIP_G = "conditioner.embedders.1.model."
ORIGINAL = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def vae_name(key: str, blocks: int) -> str | None:
    """The original name of a weight of an autoencoder with `blocks` blocks; None if the layout has
    none.

    >>> vae_name("decoder.up_blocks.0.resnets.1.conv_shortcut.weight", 4)
    'decoder.up.3.block.1.nin_shortcut.weight'
    """
    if re.fullmatch(
        r"(post_)?quant_conv\.(weight|bias)|(en|de)coder\.conv_(in|out)\.(weight|bias)", key
    ):
        return key
    key = key.replace("conv_shortcut", "nin_shortcut")
    if match := re.fullmatch(r"((?:en|de)coder)\.conv_norm_out\.(.+)", key):
        return f"{match[1]}.norm_out.{match[2]}"
    if match := re.fullmatch(
        r"((?:en|de)coder\.mid)_block\.attentions\.0\.(.+)\.(weight|bias)", key
    ):
        layer = VAE_ATTENTION.get(match[2])
        return f"{match[1]}.attn_1.{layer}.{match[3]}" if layer else None
    if match := re.fullmatch(r"((?:en|de)coder\.mid)_block\.resnets\.(\d)\.(.+)", key):
        return f"{match[1]}.block_{int(match[2]) + 1}.{match[3]}"
    match = re.fullmatch(
        r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)",
        key,
    )
    if match is None:
        return None
    way, number, part, index, rest = match.groups()
    block = int(number) if way == "encoder.down" else blocks - 1 - int(number)
    name = f"block.{index}" if part == "resnets" else part.replace("samplers", "sample")
    return f"{way}.{block}.{name}.{rest}"


def unet_tensors(unet: Any) -> dict[str, Lazy]:
    layers = unet.config.layers_per_block
    state = unet.state_dict()
    if not isinstance(layers, int):
        raise ModelError(
            "the original layout knows one number of layers for all blocks, and this U-Net has"
            f" {list(layers)}"
        )
    matches = (re.match(r"up_blocks\.(\d+)\.attentions\.", key) for key in state)
    attended = frozenset(int(match[1]) for match in matches if match)
    return _named(state, lambda key: unet_name(key, layers, attended), "U-Net")


def vae_tensors(vae: Any) -> dict[str, Lazy]:
    blocks = len(vae.config.up_block_types)
    tensors = _named(vae.state_dict(), lambda key: vae_name(key, blocks), "autoencoder")
    for name, lazy in tensors.items():
        if re.search(r"\.attn_1\.(q|k|v|proj_out)\.weight$", name) and len(lazy.shape) == 2:
            tensors[name] = _as_convolution(lazy)
    return tensors


def _as_convolution(lazy: Lazy) -> Lazy:
    """A linear layer (N, N) as the 1 x 1 convolution (N, N, 1, 1) that it was originally."""
    return Lazy(lazy.dtype, (*lazy.shape, 1, 1), lambda: lazy.make()[:, :, None, None])


def clip_tensors(encoder: Any) -> dict[str, Lazy]:
    """A text encoder under transformers' names with `text_model`, which some of its versions
    omit.
    """
    state = encoder.state_dict()
    return _named(
        state, lambda key: f"text_model.{key.removeprefix('text_model.')}", "text encoder"
    )


def open_clip_tensors(encoder: Any) -> dict[str, Lazy]:
    """A text encoder under OpenCLIP's names: query, key and value in one matrix, the projection
    transposed.
    """
    state = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    single = {
        key: value for key, value in state.items() if "_proj." not in key or "out_proj" in key
    }
    tensors = _named(single, _open_clip_name, "text encoder")
    if "text_projection" in tensors:
        tensors["text_projection"] = _lazy(state["text_projection.weight"].T)
    for key, value in state.items():
        if match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key):
            parts = [state[key.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            name = f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"
            widest = reduce(torch.promote_types, (part.dtype for part in parts))
            shape = (3 * value.shape[0], *value.shape[1:])
            tensors[name] = Lazy(widest, shape, partial(torch.cat, parts))
    return tensors


def _open_clip_name(key: str) -> str | None:
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
    if match is None:
        return OPEN_CLIP.get(key)
    layer = OPEN_CLIP_LAYER.get(match[2])
    return f"transformer.resblocks.{match[1]}.{layer}.{match[3]}" if layer else None


def _named(
    state: Mapping[str, Tensor], rename: Callable[[str], str | None], what: str
) -> dict[str, Lazy]:
    """Weights under their original names. Raises ModelError naming the first one without such a
    name.
    """
    tensors = {}
    for key, value in state.items():
        if key.endswith("position_ids"):  # positions, which every program counts itself
            continue
        name = rename(key)
        if name is None:
            raise ModelError(
                f"{key} of the {what} has no place in the original layout: export a checkpoint"
                " directory or a LoRA"
            )
        tensors[name] = _lazy(value)
    return tensors


def _lazy(value: Tensor) -> Lazy:
    return Lazy(value.dtype, tuple(value.shape), lambda: value)


def original_tensors(pipeline: Any) -> dict[str, Lazy]:
    """All weights of a Stable Diffusion 1.x, 2.x or SDXL pipeline under their original names.

    Raises ModelError for other pipelines.
    """
    kind = type(pipeline).__name__
    _check_tokens(pipeline)
    if kind not in ORIGINAL:
        raise ModelError(
            f"{kind} has no original layout that findnemo writes: only {' and '.join(ORIGINAL)}"
            " have; export a checkpoint directory or a LoRA"
        )
    parts = {UNET: unet_tensors(pipeline.unet), VAE: vae_tensors(pipeline.vae), **_text(pipeline)}
    return {
        prefix + name: lazy for prefix, tensors in parts.items() for name, lazy in tensors.items()
    }


def _check_tokens(pipeline: Any) -> None:
    """Raises ModelError for a tokenizer with added tokens (a textual inversion), which a single
    file cannot hold.
    """
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is None:
            continue
        added = sorted(set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens))
        if added:
            raise ModelError(
                f"the {name} has {len(added)} tokens of its own ({added[0]!r:.40}, a textual"
                " inversion?), which a single file has no place for: call"
                " pipeline.unload_textual_inversion() first, or export a checkpoint directory"
            )


def family(pipeline: Any) -> str:
    """The family of Stable Diffusion: "1", "2" or "xl".

    1.x has OpenAI's CLIP, the only one with the quick approximation of GELU; 2.x has OpenCLIP.
    """
    if type(pipeline).__name__ == "StableDiffusionXLPipeline":
        return "xl"
    return "1" if pipeline.text_encoder.config.hidden_act == "quick_gelu" else "2"


def _text(pipeline: Any) -> dict[str, dict[str, Lazy]]:
    """Prefix of the original names -> tensors, for every text encoder."""
    encoder = pipeline.text_encoder
    kind = family(pipeline)
    if kind == "1":
        return {CLIP_L: clip_tensors(encoder)}
    if kind == "2":
        return {OPEN_CLIP_H: open_clip_tensors(encoder)}
    if encoder is None:
        raise ModelError(
            "this SDXL pipeline has no first text encoder (a refiner?), without which user"
            " interfaces load no file"
        )
    second = open_clip_tensors(pipeline.text_encoder_2)
    return {SDXL_CLIP_L: clip_tensors(encoder), SDXL_OPEN_CLIP_G: second}


def require_original(model: Model, what: str) -> None:
    """Raises ModelError for a model without an original layout."""
    kind = type(model.pipeline).__name__
    if kind not in ORIGINAL:
        raise ModelError(
            f"{what} is of {' and '.join(ORIGINAL)} only, not of {kind}: export a checkpoint or a"
            " LoRA in diffusers' form"
        )
