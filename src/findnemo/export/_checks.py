"""Read what was written: each layer must do what the hook does, and plain libraries must be able to
load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from findnemo.edits import Effect, check_part
from findnemo.export._original import UNET
from findnemo.files.tensors import Entry, read_header, read_tensor
from findnemo.models import Model
from findnemo.models.modules import networks_of
from findnemo.models.unet_names import unet_name


def check_parts(pipeline: Any) -> None:
    """Raises EditError for a pipeline whose checkpoint plain libraries could not load."""
    for name, part in networks_of(pipeline).items():
        check_part(name, part, part.state_dict())


def check_checkpoint(folder: Path, model: Model, wanted: Mapping[str, Effect]) -> None:
    """Raises EditError unless a diffusers directory carries an edit of `model`, and plain libraries
    load all of it.
    """
    for name, part in networks_of(model.pipeline).items():
        entries = {key: entry for key, (_, entry) in _tensors(folder / name).items()}
        check_part(name, part, entries)
    tensors = _tensors(folder / model.component)
    for layer, effect in wanted.items():
        weight, bias = (_read(tensors, f"{layer}.{end}") for end in ("weight", "bias"))
        effect.check_weights(weight, bias, f"the written {model.component}")


def check_file(path: Path, model: Model, wanted: Mapping[str, Effect]) -> None:
    """Raises EditError unless a single file in the original layout carries an edit."""
    for layer, effect in wanted.items():
        effect.check_weights(*_layer(path, model, layer), f"the written {path.name}")


def as_kept(path: Path, model: Model, wanted: Mapping[str, Effect]) -> dict[str, Effect]:
    """The edit of the weights in a single file, which may be more precise than the loaded ones."""
    kept = {}
    for layer, effect in wanted.items():
        weight, bias = _layer(path, model, layer)
        if weight is not None:
            kept[layer] = replace(effect, weight=weight, bias=bias)
    return kept


def _layer(path: Path, model: Model, layer: str) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a value layer in a single file; None if missing."""
    tensors = {name: (path, entry) for name, entry in read_header(path)[0].items()}
    per_block = model.pipeline.unet.config.layers_per_block
    names = (unet_name(f"{layer}.{end}", per_block) for end in ("weight", "bias"))
    weight, bias = (_read(tensors, f"{UNET}{name}") for name in names)
    return weight, bias


def kohya_name(layer: str) -> str:
    """The prefix of the tensors of a layer in a LoRA in kohya's form."""
    return f"lora_unet_{layer.replace('.', '_')}"


def check_kohya(tensors: Mapping[str, Tensor], wanted: Mapping[str, Effect]) -> None:
    """Raises EditError unless a LoRA in kohya's form carries an edit at strength 1."""
    for layer, effect in wanted.items():
        names = (
            f"{kohya_name(layer)}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")
        )
        parts = [tensors[name].double() for name in names if name in tensors]
        change = None
        if len(parts) == 3:
            down, up, alpha = parts
            change = up @ down * alpha / len(down)
        effect.check_change(change, None, "the LoRA")


def _tensors(folder: Path) -> dict[str, tuple[Path, Entry]]:
    """Name -> file and place, of all weights in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: (file, entry) for file in files for name, entry in read_header(file)[0].items()}


def _read(tensors: Mapping[str, tuple[Path, Entry]], name: str) -> Tensor | None:
    return read_tensor(*tensors[name]) if name in tensors else None
