"""Read a LoRA in the form of any trainer, and apply it to its base model in full or not at all.

The names that a file may use are generated from the modules of the model itself. So a key either
belongs to an existing module or raises an error: no key is silently ignored. The supported forms
are those of diffusers and peft, of kohya's trainer (also used by ComfyUI and AUTOMATIC1111), and
LyCORIS' plain LoRA of linear layers and convolutions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.errors import InputError, ModelError
from findnemo.files.sizes import JSON_BYTES, within_size
from findnemo.files.tensors import DTYPES, PICKLED, read_header, read_tensor
from findnemo.models.modules import networks_of
from findnemo.models.unet_names import unet_name

MOST = 16 << 30  # largest LoRA file, in bytes
# LoRA files in a directory
FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
PEFT_CONFIG = "adapter_config.json"
METADATA = "lora_adapter_metadata"  # key of peft's configuration in diffusers' files

# suffix of a key -> what it holds: for peft, diffusers, kohya and old diffusers
ENDS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_B.bias": "bias",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
# part of a key -> name of a method other than plain LoRA
OTHERS = {
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft_": "OFT",
    "on_input": "IA3",
    "diff_b": "a full difference",
    ".diff": "a full difference",
    "lora_E": "AdaLoRA",
    "lora_embedding_": "a LoRA of embeddings",
}
# prefixes of the text encoders in kohya's form; the second is for a single encoder
KOHYA_TEXT = {
    "text_encoder": ("lora_te1_", "lora_te_"),
    "text_encoder_2": ("lora_te2_",),
    "text_encoder_3": ("lora_te3_",),
}
QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
TEXT_QKV = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
# diffusers' layers of a block with joint attention -> the layer that holds their rows, in order, in
# the original layouts of FLUX.1 and of Stable Diffusion 3
JOINT = {
    QKV: ("img_attn.qkv", "x_block.attn.qkv"),
    TEXT_QKV: ("txt_attn.qkv", "context_block.attn.qkv"),
    ("attn.to_out.0",): ("img_attn.proj", "x_block.attn.proj"),
    ("attn.to_add_out",): ("txt_attn.proj", "context_block.attn.proj"),
    ("ff.net.0.proj",): ("img_mlp.0", "x_block.mlp.fc1"),
    ("ff.net.2",): ("img_mlp.2", "x_block.mlp.fc2"),
    ("ff_context.net.0.proj",): ("txt_mlp.0", "context_block.mlp.fc1"),
    ("ff_context.net.2",): ("txt_mlp.2", "context_block.mlp.fc2"),
}
FLUX = {ours: flux for ours, (flux, _) in JOINT.items()} | {
    ("norm1.linear",): "img_mod.lin",
    ("norm1_context.linear",): "txt_mod.lin",
}
FLUX_SINGLE = {
    (*QKV, "proj_mlp"): "linear1",
    ("proj_out",): "linear2",
    ("norm.linear",): "modulation.lin",
}
SD3 = {ours: sd3 for ours, (_, sd3) in JOINT.items()}
ORIGINAL_BLOCKS = {  # denoiser class -> diffusers' name of its blocks, the original one, and layers
    "FluxTransformer2DModel": (
        ("transformer_blocks", "double_blocks", FLUX),
        ("single_transformer_blocks", "single_blocks", FLUX_SINGLE),
    ),
    "SD3Transformer2DModel": (("transformer_blocks", "joint_blocks", SD3),),
}


@dataclass(frozen=True)
class Place:
    """The target of a key: modules of a component that share its rows, in order."""

    component: str
    modules: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.component}.{' + '.join(self.modules)}"


@dataclass(frozen=True)
class Delta:
    """The change of one weight, dW = alpha / rank * up @ down, and of its bias, if any.

    `down`: (rank, in, ...), `up`: (out, rank, ...), `mid`: (rank, rank, h, w) of a convolution in
    three steps. `scale`: alpha / rank. All are float32.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0
    mid: Tensor | None = None
    bias: Tensor | None = None

    def weight(self, shape: torch.Size) -> Tensor:
        """dW in the shape of the weight to which it is added."""
        if self.mid is not None:
            steps = (self.up.flatten(1), self.mid, self.down.flatten(1))
            return self.scale * torch.einsum("or,rshw,si->oihw", *steps).reshape(shape)
        return (self.scale * (self.up.flatten(1) @ self.down.flatten(1))).reshape(shape)

    def rows(self, start: int, stop: int) -> Delta:
        """The change of the outputs `start` to `stop`."""
        bias = None if self.bias is None else self.bias[start:stop]
        return Delta(self.down, self.up[start:stop], self.scale, self.mid, bias)


@dataclass(frozen=True)
class Lora:
    """The changes in a LoRA file: (component, module) -> `Delta`. `source`: the file."""

    source: str
    deltas: Mapping[tuple[str, str], Delta] = field(repr=False)

    def merge(self, pipeline: Any, scale: float = 1.0) -> None:
        """Add the changes to the weights of a pipeline, in place, at a strength.

        Sums are float32, rounded once to the dtype of the weight.
        """
        for (component, name), delta in self.deltas.items():
            module = getattr(pipeline, component).get_submodule(name)
            with torch.no_grad():
                _add(module.weight, delta.weight(module.weight.shape), scale)
                if delta.bias is not None:
                    _add(module.bias, delta.bias, scale)


def _add(parameter: Tensor, change: Tensor, scale: float) -> None:
    changed = parameter.float() + scale * change.to(parameter.device)
    parameter.copy_(changed.to(parameter.dtype))


def read_lora(source: str | Path, pipeline: Any) -> Lora:
    """Read a LoRA for a pipeline: a .safetensors file, or a directory that peft or diffusers wrote.

    Raises InputError for anything but such a file. Raises ModelError naming the key for a LoRA of
    another model, of another method (LoHa, LoKr, DoRA), truncated, or not applicable.

        lora = read_lora("adapter.safetensors", model.pipeline)
        lora.merge(model.pipeline, 0.8)
    """
    return read_file(lora_file(source), pipeline)


def read_file(path: Path, pipeline: Any) -> Lora:
    """Read a LoRA from a safetensors file of any name; raises as `read_lora` does."""
    if path.stat().st_size > MOST:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes: it cannot be a LoRA")
    entries, metadata = read_header(path)
    if not entries:
        raise InputError(f"{path} holds no tensors")
    places = _places(pipeline)
    configs = _configurations(path, metadata)
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, entry in entries.items():
        stem, part = _parsed(path, key)
        if stem not in places:
            raise _foreign(path, key, pipeline)
        if part in grouped.setdefault(stem, {}):
            raise ModelError(f"{path} has {part} of {stem} twice")
        kind = DTYPES.get(entry.dtype)
        if kind is None or not (kind.is_floating_point or part == "alpha"):
            raise ModelError(f"{path} has {key} as {entry.dtype}: quantized values are not read")
        grouped[stem][part] = read_tensor(path, entry).float()
    deltas: dict[tuple[str, str], Delta] = {}
    for stem, parts in grouped.items():
        place = places[stem]
        delta = _delta(path, stem, parts, _scale(configs, place, parts))
        for name, piece in _split(path, stem, place, delta, pipeline):
            if (place.component, name) in deltas:
                raise ModelError(f"{path} changes {place.component}.{name} under two names")
            deltas[place.component, name] = piece
    return Lora(str(path), deltas)


def of_strength(name: str) -> tuple[str, float]:
    """The file and the strength in a name such as "adapter.safetensors:0.8"; the default is 1.

    Raises InputError for a strength that is no finite number.

    >>> of_strength("adapter.safetensors:0.8"), of_strength("adapter.safetensors")
    (('adapter.safetensors', 0.8), ('adapter.safetensors', 1.0))
    """
    file, colon, text = name.rpartition(":")
    if not colon or Path(name).exists() or (not text[:1].isdecimal() and text[:1] not in "+-."):
        return name, 1.0
    try:
        scale = float(text)
    except ValueError:
        return name, 1.0
    if not math.isfinite(scale):
        raise InputError(f"{text} is not a strength of a LoRA: give a number such as 0.8")
    return file, scale


def lora_file(source: str | Path) -> Path:
    """The file of a LoRA: a .safetensors file itself, or the one in a directory of peft or diffusers.

    Raises InputError for anything else, ModelError for a pickle.
    """
    path = Path(source)
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()]
        others = sorted(path.glob("*.safetensors"))
        if not found and len(others) != 1:
            raise InputError(
                f"{path} holds {len(others)} .safetensors files and none of {' or '.join(FILES)}:"
                " name the LoRA's file"
            )
        return (found or others)[0]
    if not path.is_file():
        raise InputError(f"no LoRA {path}: give a .safetensors file, or a directory with one")
    with path.open("rb") as file:
        pickled = file.read(8).startswith(PICKLED)
    if pickled:
        raise ModelError(
            f"{path} is a pickle, and a pickle can run code: take the LoRA's .safetensors file"
        )
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"{path} is not a .safetensors file")
    return path


# names ----------------------------------------------------------------------------------------------


def _parsed(path: Path, key: str) -> tuple[str, str]:
    """The module that a key names in the file, and what the key holds of its change."""
    for end, part in ENDS.items():
        if key.endswith(end):
            return key.removesuffix(end).replace(".processor.", "."), part
    for mark, method in OTHERS.items():
        if mark in key:
            raise ModelError(
                f"{path} is of another method than LoRA, {method} ({key}), which findnemo does not"
                " apply: merge it into its base model, and audit that"
            )
    raise ModelError(f"{path} has a key that does not belong to a LoRA: {key}")


def _foreign(path: Path, key: str, pipeline: Any) -> ModelError:
    return ModelError(
        f"{path} changes {key}, which this {type(pipeline).__name__} does not have: it is a LoRA for"
        " another base model, or another architecture"
    )


def _places(pipeline: Any) -> dict[str, Place]:
    """Every possible name of a module in a file -> its place."""
    places: dict[str, Place] = {}
    for component, network in networks_of(pipeline).items():
        modules = [
            name
            for name, module in network.named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d)) and name
        ]
        for name in modules:
            place = Place(component, (name,))
            places |= dict.fromkeys(_names(component, name, network), place)
        places |= _original(component, network, modules)
    return places


def _names(component: str, name: str, network: Any) -> Iterator[str]:
    """The names of a module in files."""
    if component in KOHYA_TEXT:
        # versions of transformers differ in a prefix of these modules
        full = name if name.startswith(("text_model.", "encoder.block")) else f"text_model.{name}"
        for one in {name, full}:
            yield f"{component}.{one}"
            for prefix in KOHYA_TEXT[component]:
                yield prefix + one.replace(".", "_")
        return
    if component not in ("unet", "transformer"):
        return
    old = name.removesuffix(".0") if name.endswith("to_out.0") else name
    for one in {name, old}:  # before peft, diffusers omitted the 0 of to_out.0
        yield one
        yield f"{component}.{one}"
        yield f"base_model.model.{one}"
        yield f"base_model.model.{component}.{one}"
    for prefix in ("lora_unet_", f"lora_{component}_"):
        yield prefix + name.replace(".", "_")
    layers = getattr(getattr(network, "config", None), "layers_per_block", None)
    if component == "unet" and isinstance(layers, int):
        attended = frozenset(
            k for k, kind in enumerate(network.config.up_block_types) if "Attn" in kind
        )
        original = (unet_name(f"{name}.weight", layers, attended) or "").removesuffix(".weight")
        if original:
            yield "lora_unet_" + original.replace(".", "_")
            yield f"diffusion_model.{original}"


def _original(component: str, network: nn.Module, modules: Iterable[str]) -> dict[str, Place]:
    """Names of a transformer's layers in its original layout; some hold rows of several layers."""
    known = set(modules)
    places: dict[str, Place] = {}
    for blocks, originals, layers in ORIGINAL_BLOCKS.get(type(network).__name__, ()):
        for number in {name.split(".")[1] for name in known if name.startswith(f"{blocks}.")}:
            for names, original in layers.items():
                place = Place(component, tuple(f"{blocks}.{number}.{name}" for name in names))
                if known.issuperset(place.modules):
                    theirs = f"{originals}.{number}.{original}"
                    for name in (theirs, f"diffusion_model.{theirs}", f"transformer.{theirs}"):
                        places[name] = place
                    places["lora_unet_" + theirs.replace(".", "_")] = place
    return places


# values ---------------------------------------------------------------------------------------------


def _scale(configs: Mapping[str, Any], place: Place, parts: Mapping[str, Tensor]) -> float:
    """alpha / rank of a module; 1 by default. `configs`: for files without alpha."""
    if "down" not in parts:
        return 1.0
    rank = len(parts["down"])
    config = configs.get(place.component, configs.get("", {}))
    alpha: Any = config.get("lora_alpha", rank)
    patterns = config.get("alpha_pattern") or {}
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if place.modules[0].endswith(str(pattern).lstrip("^")):
            alpha = value
    if "alpha" in parts:
        alpha = parts["alpha"]
    try:
        alpha = float(alpha)
    except (TypeError, ValueError, RuntimeError):
        raise ModelError(f"alpha of {place.name} is not a number") from None
    if not math.isfinite(alpha):
        raise ModelError(f"alpha of {place.name} is {alpha}")
    root = bool(config.get("use_rslora")) and "alpha" not in parts
    return alpha / (math.sqrt(rank) if root else rank)


def _configurations(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """peft's configurations of a file, by component ("" for all): in its metadata, or next to
    it.
    """
    of: dict[str, dict[str, Any]] = {}
    beside = path.parent / PEFT_CONFIG
    if METADATA in metadata:
        kept = _mapping(metadata[METADATA], f"{METADATA} of {path}")
        for key, value in kept.items():
            component, _, name = key.partition(".")
            of.setdefault(component, {})[name] = value
    elif path.name == FILES[1] and beside.is_file():
        text = within_size(beside, JSON_BYTES).read_text(encoding="utf-8")
        of = {"": _mapping(text, str(beside))}
    for config in of.values():
        if config.get("use_dora"):
            raise ModelError(f"{path} is a DoRA, which findnemo does not apply: merge it first")
    return of


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error!s:.100})") from None
    if not isinstance(value, dict):
        raise InputError(f"{where} is not a JSON object")
    return value


def _delta(path: Path, stem: str, parts: Mapping[str, Tensor], scale: float) -> Delta:
    """The change that a file holds under a name. Raises ModelError if a part is missing."""
    if missing := [part for part in ("down", "up") if part not in parts]:
        raise ModelError(f"{path} has no {missing[0]} of {stem}: it is cut, or of another form")
    down, up, mid = parts["down"], parts["up"], parts.get("mid")
    if min(down.dim(), up.dim()) < 2 or len(down) == 0:
        raise ModelError(f"{stem} of {path} has matrices without rows or columns")
    inner = (len(down), up.shape[1]) if mid is None or mid.dim() < 2 else (len(down), mid.shape[1])
    if inner[0] != inner[1] or (mid is not None and len(mid) != up.shape[1]):
        raise ModelError(
            f"{stem} of {path} has rank {len(down)} in its down matrix and {up.shape[1]} in its up"
            " matrix: the file is cut, or two LoRAs were mixed"
        )
    around = [up.shape[2:]] if mid is None else [up.shape[2:], down.shape[2:]]
    if any(math.prod(kernel) != 1 for kernel in around) or (mid is not None and mid.dim() != 4):
        raise ModelError(f"{stem} of {path} has matrices of other shapes than a LoRA's")
    if "bias" in parts and parts["bias"].shape != up.shape[:1]:
        raise ModelError(f"{stem} of {path} has a bias of another length than its outputs")
    for part, value in parts.items():
        if not bool(value.isfinite().all()):
            raise ModelError(f"{part} of {stem} in {path} is not finite")
    return Delta(down, up, scale, mid, parts.get("bias"))


def _split(
    path: Path, stem: str, place: Place, delta: Delta, pipeline: Any
) -> Iterator[tuple[str, Delta]]:
    """The change of each module of a place. Raises ModelError if shapes do not fit."""
    network = getattr(pipeline, place.component)
    layers = {name: network.get_submodule(name) for name in place.modules}
    outputs = [len(layer.weight) for layer in layers.values()]
    shape = next(iter(layers.values())).weight.shape
    if len(delta.up) != sum(outputs) or not _fits(delta, shape):
        raise ModelError(
            f"{stem} of {path} is for a layer of {len(delta.up)} outputs and"
            f" {delta.down.shape[1]} inputs; {place.name} has {sum(outputs)} and {shape[1]}: it is a"
            " LoRA for another base model"
        )
    if delta.bias is not None and any(layer.bias is None for layer in layers.values()):
        if delta.bias.any():
            raise ModelError(f"{stem} of {path} changes a bias that {place.name} does not have")
        delta = replace(delta, bias=None)  # zeros: peft writes biases for every layer or for none
    start = 0
    for name, count in zip(layers, outputs, strict=True):
        yield name, delta.rows(start, start + count)
        start += count


def _fits(delta: Delta, shape: torch.Size) -> bool:
    """Whether a change has the inputs of a weight, and the kernel of a convolution."""
    if delta.down.shape[1] != shape[1]:
        return False
    kernel = delta.down.shape[2:] if delta.mid is None else delta.mid.shape[2:]
    return math.prod(kernel) == math.prod(shape[2:]) and (
        len(shape) == 2 or not kernel or kernel == shape[2:]
    )
