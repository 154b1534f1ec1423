"""What was written is read again: it must do to each layer what the hook does, and plain libraries must be able to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from findnemo.edits import Effect, check_part
from findnemo.export._original import UNET, unet_name
from findnemo.files.tensors import Entry, read_header, read_rows
from findnemo.models import Model


def check_parts(pipeline: Any) -> None:
    """Raises EditError for a pipeline of which plain libraries could not load a checkpoint."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            check_part(name, part, part.state_dict())


def check_checkpoint(folder: Path, model: Model, wanted: Mapping[str, Effect]) -> None:
    """Raises EditError unless a diffusers directory carries an edit of `model`, and plain libraries load all that is in it."""
    for name, part in model.pipeline.components.items():
        if isinstance(part, nn.Module):
            check_part(
                name, part, {key: entry for key, (_, entry) in _tensors(folder / name).items()}
            )
    tensors = _tensors(folder / model.component)
    for layer, effect in wanted.items():
        weight, bias = (_read(tensors, f"{layer}.{end}") for end in ("weight", "bias"))
        effect.check_weights(weight, bias, f"the written {model.component}")


def check_file(path: Path, model: Model, wanted: Mapping[str, Effect]) -> None:
    """Raises EditError unless a single file in the original layout carries an edit."""
    for layer, effect in wanted.items():
        effect.check_weights(*_layer(path, model, layer), f"the written {path.name}")


def as_kept(path: Path, model: Model, wanted: Mapping[str, Effect]) -> dict[str, Effect]:
    """The same edit of the weights as a single file keeps them, which may be finer than those that were loaded."""
    kept = {layer: _layer(path, model, layer) for layer in wanted}
    return {
        n: replace(wanted[n], weight=weight, bias=bias)
        for n, (weight, bias) in kept.items()
        if weight is not None
    }


def _layer(path: Path, model: Model, layer: str) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a value layer in a single file; None for one that is not there."""
    tensors = {name: (path, entry) for name, entry in read_header(path)[0].items()}
    per_block = model.pipeline.unet.config.layers_per_block
    weight, bias = (
        _read(tensors, f"{UNET}{unet_name(f'{layer}.{end}', per_block)}")
        for end in ("weight", "bias")
    )
    return weight, bias


def check_kohya(tensors: Mapping[str, Tensor], wanted: Mapping[str, Effect]) -> None:
    """Raises EditError unless a LoRA in kohya's form carries an edit at strength 1."""
    for layer, effect in wanted.items():
        parts = [
            tensors.get(f"lora_unet_{layer.replace('.', '_')}.{end}")
            for end in ("lora_down.weight", "lora_up.weight", "alpha")
        ]
        down, up, alpha = (None if part is None else part.double() for part in parts)
        whole = (
            None if down is None or up is None or alpha is None else up @ down * alpha / len(down)
        )
        effect.check_change(whole, None, "the LoRA")


def _tensors(folder: Path) -> dict[str, tuple[Path, Entry]]:
    """Name -> file and place, of all weights in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: (file, entry) for file in files for name, entry in read_header(file)[0].items()}


def _read(tensors: Mapping[str, tuple[Path, Entry]], name: str) -> Tensor | None:
    if name not in tensors:
        return None
    path, entry = tensors[name]
    return read_rows(path, entry, slice(0, entry.shape[0]))
