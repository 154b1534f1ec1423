"""Exports that carry weights: a checkpoint directory, a single file in the original layout, and LoRAs in two forms."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from findnemo._effect import Effect, check_called
from findnemo._probing import times
from findnemo._safetensors import DTYPES, Entry, read_header, read_rows, write, write_rows
from findnemo.edits import LIMITS, effects, lora_weights, prune, save_lora
from findnemo.errors import EditError, MismatchError, ModelError
from findnemo.export._card import model_card
from findnemo.export._checks import check_checkpoint, check_file, check_kohya, check_parts
from findnemo.export._original import UNET, original_tensors, require_original, unet_name
from findnemo.export._selection import Selection
from findnemo.models import Model
from findnemo.neurons import NeuronSet


def write_checkpoint(model: Model, chosen: Selection, path: Path) -> None:
    """A diffusers directory whose weights carry the edit, with the model card's section as README.md."""
    wanted = effects(model, chosen.neurons, chosen.factor)
    pruned = prune(model, chosen.neurons, chosen.factor)
    check_parts(pruned)
    pruned.save_pretrained(path, safe_serialization=True)
    check_checkpoint(path, model, wanted)
    (path / "README.md").write_text(model_card(chosen), encoding="utf-8")


def write_lora(model: Model, chosen: Selection, path: Path) -> None:
    """A directory that `pipeline.load_lora_weights` reads."""
    save_lora(model, chosen.neurons, path, chosen.factor)


def write_kohya(model: Model, chosen: Selection, path: Path) -> None:
    """The same LoRA in kohya's form, which user interfaces and `pipeline.load_lora_weights` read."""
    require_original(model, "a LoRA in kohya's form")
    tensors = kohya_weights(model, chosen.neurons, chosen.factor)
    rank = str(len(next(value for name, value in tensors.items() if name.endswith("lora_down.weight"))))
    about = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
    write(path, tensors, about | _about(chosen) | {"limits": LIMITS})
    check_kohya(load_file(path), effects(model, chosen.neurons, chosen.factor))


def kohya_weights(model: Model, neurons: NeuronSet, factor: float = 0.0) -> dict[str, torch.Tensor]:
    """`edits.lora_weights` under kohya's names, with alpha = rank: at strength 1 the change is exact. Raises EditError for a bias."""
    biased = [name for name in neurons.layers if getattr(model.value_layers.get(name), "bias", None) is not None]
    if biased:
        raise EditError(f"{biased[0]} has a bias, which kohya's form does not carry: export a checkpoint instead")
    made = {}
    for key, value in lora_weights(model, neurons, factor).items():
        layer, _, end = key.removeprefix(f"{model.component}.").rpartition(".lora_")
        name = f"lora_unet_{layer.replace('.', '_')}"
        made[f"{name}.lora_{'down' if end == 'A.weight' else 'up'}.weight"] = value
        if end == "A.weight":
            made[f"{name}.alpha"] = torch.tensor(float(len(value)))
    check_kohya(made, effects(model, neurons, factor))
    return made


def write_file(model: Model, chosen: Selection, path: Path) -> None:
    """One file in the original layout: the file that was loaded with other rows, or a conversion of what was loaded."""
    require_original(model, "a single file")
    if Path(model.source).is_file():
        rewrite(model, chosen.neurons, path, chosen.factor)
    else:
        pruned = prune(model, chosen.neurons, chosen.factor)
        check_parts(pruned)
        write(path, original_tensors(pruned), {"format": "pt"} | _about(chosen))
        check_file(path, model, effects(model, chosen.neurons, chosen.factor))


def rewrite(model: Model, neurons: NeuronSet, path: Path, factor: float = 0.0) -> None:
    """Copy the single file that a model was loaded from and scale the rows of `neurons`; not a byte beside them changes.

    Where the file keeps a second, averaged U-Net (EMA), its rows are scaled as well: it holds the same memory. Raises
    MismatchError if the file no longer holds the weights that were loaded.
    """
    tensors, _ = read_header(model.source)
    check_parts(model.pipeline)  # what a file cannot carry (a LoRA, masks) is not in it
    wanted = effects(model, neurons, factor)
    places = {layer: _places(model, tensors, effect) for layer, effect in wanted.items()}
    check_called(model, {layer: model.denoiser.get_submodule(layer) for layer in wanted})
    shutil.copyfile(model.source, path)
    for layer, effect in wanted.items():
        for name in places[layer]:
            for index in effect.rows:
                row = read_rows(path, tensors[name], slice(index, index + 1))
                write_rows(path, tensors[name], index, times(row.float(), torch.tensor(factor)))
    check_file(path, model, wanted)


def _places(model: Model, tensors: dict[str, Entry], effect: Effect) -> list[str]:
    """The names under which a file keeps what a value layer's rows depend on, once they are known to be what was loaded."""
    names = []
    for end, loaded in (("weight", effect.weight), ("bias", effect.bias)):
        if loaded is None:
            continue
        name = unet_name(f"{effect.name}.{end}", model.pipeline.unet.config.layers_per_block)
        original = f"{UNET}{name}"
        if original not in tensors:
            raise ModelError(f"{model.source} has no {original}: it is not in the original layout; export a checkpoint directory")
        entry = tensors[original]
        if entry.dtype not in DTYPES or entry.shape != tuple(loaded.shape):
            raise MismatchError(
                f"{original} in {model.source} is {entry.dtype} {entry.shape}, not what was loaded: load the file again"
            )
        if not torch.equal(read_rows(model.source, entry, slice(0, entry.shape[0])).to(loaded.dtype), loaded.cpu()):
            raise MismatchError(
                f"{original} in {model.source} is not what was loaded: the file or the model changed since; load it again"
            )
        names.append(original)
        averaged = "model_ema." + "".join(original.split(".")[1:])
        names += [averaged] if averaged in tensors else []
    return names


def _about(chosen: Selection) -> dict[str, str]:
    scaled = {"factor": str(chosen.factor)} if chosen.factor else {}
    return {"made_by": "findnemo", "neurons": str(len(chosen.neurons)), "model": chosen.fingerprint, **scaled}
