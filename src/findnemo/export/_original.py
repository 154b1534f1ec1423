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
from findnemo.models.unet_names import unet_name

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "cond_stage_model.transformer."  # Stable Diffusion 1.x
OPEN_CLIP_H = "cond_stage_model.model."  # 2.x
SDXL_CLIP_L = "conditioner.embedders.0.transformer."
SDXL_OPEN_CLIP_G = "conditioner.embedders.1.model."
ORIGINAL = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

MID = r"(encoder|decoder)\.mid_block"
BLOCK = r"(encoder\.down|decoder\.up)_blocks\.(\d+)"
LAYER = r"encoder\.layers\.(\d+)"
END = r"(weight|bias)"
VAE_NAMES = {  # pattern of a diffusers name -> original name
    rf"((post_)?quant_conv|(encoder|decoder)\.conv_(in|out))\.{END}": r"\g<0>",
    r"(encoder|decoder)\.conv_norm_out\.(.+)": r"\1.norm_out.\2",
    rf"{MID}\.attentions\.0\.group_norm\.{END}": r"\1.mid.attn_1.norm.\2",
    rf"{MID}\.attentions\.0\.to_([qkv])\.{END}": r"\1.mid.attn_1.\2.\3",
    rf"{MID}\.attentions\.0\.to_out\.0\.{END}": r"\1.mid.attn_1.proj_out.\2",
    rf"{MID}\.resnets\.0\.(.+)": r"\1.mid.block_1.\2",
    rf"{MID}\.resnets\.1\.(.+)": r"\1.mid.block_2.\2",
    rf"{BLOCK}\.resnets\.(\d+)\.(.+)": r"\1.\2.block.\3.\4",
    rf"{BLOCK}\.(down|up)samplers\.\d+\.(.+)": r"\1.\2.\3sample.\4",
}
OPEN_CLIP_NAMES = {
    r"embeddings\.(token_embedding\.weight)": r"\1",
    r"embeddings\.position_embedding\.weight": "positional_embedding",
    rf"final_layer_norm\.{END}": r"ln_final.\1",
    r"text_projection\.weight": "text_projection",
    rf"{LAYER}\.layer_norm([12])\.{END}": r"transformer.resblocks.\1.ln_\2.\3",
    rf"{LAYER}\.mlp\.fc1\.{END}": r"transformer.resblocks.\1.mlp.c_fc.\2",
    rf"{LAYER}\.mlp\.fc2\.{END}": r"transformer.resblocks.\1.mlp.c_proj.\2",
    rf"{LAYER}\.self_attn\.out_proj\.{END}": r"transformer.resblocks.\1.attn.out_proj.\2",
}


def named_by(names: Mapping[str, str], key: str) -> str | None:
    """The name by the first pattern that fits a whole key; None if none does.

    >>> named_by(OPEN_CLIP_NAMES, "encoder.layers.3.mlp.fc1.bias")
    'transformer.resblocks.3.mlp.c_fc.bias'
    """
    matches = ((re.fullmatch(pattern, key), name) for pattern, name in names.items())
    return next((match.expand(name) for match, name in matches if match), None)


def vae_name(key: str, blocks: int) -> str | None:
    """The original name of a weight of an autoencoder with `blocks` blocks; None if the layout has
    none.

    >>> vae_name("decoder.up_blocks.0.resnets.1.conv_shortcut.weight", 4)
    'decoder.up.3.block.1.nin_shortcut.weight'
    """

    def counted_from_end(match: re.Match[str]) -> str:
        return f"decoder.up_blocks.{blocks - 1 - int(match[1])}."

    key = key.replace("conv_shortcut", "nin_shortcut")
    return named_by(VAE_NAMES, re.sub(r"decoder\.up_blocks\.(\d+)\.", counted_from_end, key))


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
    tensors = _named(single, partial(named_by, OPEN_CLIP_NAMES), "text encoder")
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
