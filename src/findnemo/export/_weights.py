"""Exports with weights: a checkpoint directory, a single file in the original layout, and LoRAs in
two forms.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from findnemo.edits import LIMITS, Effect, check_called, effects, lora_weights, save_lora, times
from findnemo.errors import EditError, MismatchError, ModelError
from findnemo.export._card import model_card
from findnemo.export._checks import (
    as_kept,
    check_checkpoint,
    check_file,
    check_kohya,
    check_parts,
    kohya_name,
)
from findnemo.export._marks import (
    OURS,
    check_schedule,
    completed,
    kohya,
    spec,
    tell_limits,
    tell_limits_of_lora,
)
from findnemo.export._marks import configuration as ldm_configuration
from findnemo.export._marks import tensors as mark_names
from findnemo.export._original import ORIGINAL, UNET, original_tensors, require_original
from findnemo.export._selection import Selection
from findnemo.export._source import Dtype, Origin, tell_narrowed
from findnemo.files.tensors import (
    DTYPES,
    HASHES,
    STALE,
    UNSEALED,
    Entry,
    Lazy,
    copy,
    read_header,
    read_rows,
    read_tensor,
    seal,
    write,
    write_rows,
)
from findnemo.models import Model
from findnemo.models.marks import Mark, agreed, contradiction, marks_of
from findnemo.models.unet_names import unet_name
from findnemo.neurons import NeuronSet


def write_checkpoint(origin: Origin, chosen: Selection, path: Path) -> None:
    """Write a diffusers directory whose weights carry the edit, with the model card's section as
    README.md.
    """
    pruned, kept = origin.edited(chosen.neurons, chosen.factor)
    check_parts(pruned)
    pruned.save_pretrained(path, safe_serialization=True)
    check_checkpoint(path, origin.model, effects(kept, chosen.neurons, chosen.factor))
    (path / "README.md").write_text(model_card(chosen), encoding="utf-8")


def write_lora(origin: Origin, chosen: Selection, path: Path) -> None:
    """Write a directory that `pipeline.load_lora_weights` reads."""
    file = save_lora(origin.source.model, chosen.neurons, path, chosen.factor)
    entries, metadata = read_header(file)
    tensors = {name: read_tensor(file, entry) for name, entry in entries.items()}
    write(file, _all_as(tensors, origin.dtype), metadata | about_of(chosen))


def write_kohya(origin: Origin, chosen: Selection, path: Path) -> None:
    """Write a LoRA in kohya's form, which user interfaces and `pipeline.load_lora_weights` read."""
    marks = kohya_marks(origin.model, chosen)
    kept = origin.source.model
    tensors = kohya_weights(kept, chosen.neurons, chosen.factor)
    rank = str(len(next(value for name, value in tensors.items() if "lora_down" in name)))
    network = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
    }
    about = about_of(chosen) | {"limits": LIMITS}
    write(path, _all_as(tensors, origin.dtype), network | marks | about)
    seal(path)
    # a narrower dtype is not exact, and a warning said so
    exact = tensors if origin.dtype is not None else load_file(path)
    check_kohya(exact, effects(kept, chosen.neurons, chosen.factor))


def kohya_weights(model: Model, neurons: NeuronSet, factor: float = 0.0) -> dict[str, torch.Tensor]:
    """`edits.lora_weights` under kohya's names, with alpha = rank: the change is exact at strength
    1.

    Raises EditError for a bias.
    """
    layers = model.layers_of("all")
    biased = [n for n in neurons.layers if getattr(layers.get(n), "bias", None) is not None]
    if biased:
        raise EditError(
            f"{biased[0]} has a bias, which kohya's form does not carry: export a checkpoint"
            " instead"
        )
    tensors = {}
    for key, value in lora_weights(model, neurons, factor).items():
        layer, _, end = key.removeprefix(f"{model.component}.").rpartition(".lora_")
        name = kohya_name(layer)
        if end == "A.weight":
            tensors[f"{name}.lora_down.weight"] = value
            tensors[f"{name}.alpha"] = torch.tensor(float(len(value)))
        else:
            tensors[f"{name}.lora_up.weight"] = value
    check_kohya(tensors, effects(model, neurons, factor))
    return tensors


def write_file(origin: Origin, chosen: Selection, path: Path) -> None:
    """Write one file in the original layout: the loaded file with edited rows, or a conversion of
    the loaded model.
    """
    model = origin.model
    require_original(model, "a single file")
    if Path(model.source).is_file() and not {"lora", "embedding"} & set(model.options):
        rewrite(model, chosen.neurons, path, chosen.factor, origin.dtype, own_of(model, chosen))
        return
    check_schedule(model.pipeline)
    tell_limits(model.pipeline)
    marks = dict.fromkeys(mark_names(model.pipeline), torch.zeros(0))
    pruned, kept = origin.edited(chosen.neurons, chosen.factor)
    check_parts(pruned)
    own = own_of(model, chosen)
    metadata = {"format": "pt"} | spec(model.pipeline, own["modelspec.title"]) | own
    write(path, {**original_tensors(pruned), **marks}, metadata)
    seal(path)
    check_file(path, model, effects(kept, chosen.neurons, chosen.factor))


def beside_file(model: Model) -> str | None:
    """The configuration of the original code to put next to a single file: that of the source, or a
    new one if needed.
    """
    source = Path(model.source)
    beside = source.with_suffix(".yaml")
    if source.is_file() and beside.is_file():
        return f"{OURS}a copy of {beside.name}\n{beside.read_text(encoding='utf-8')}"
    return ldm_configuration(model.pipeline) if type(model.pipeline).__name__ in ORIGINAL else None


def rewrite(
    model: Model,
    neurons: NeuronSet,
    path: Path,
    factor: float = 0.0,
    dtype: Dtype = None,
    own: Mapping[str, str] | None = None,
) -> None:
    """Copy the single file that a model was loaded from and scale the rows of `neurons`; no other
    byte changes.

    If the file has a second, averaged U-Net (EMA), its rows are scaled too, since it holds the same
    memory. The header changes only in three ways: invalid hashes are removed, missing marks of
    v-prediction and zero terminal SNR are added, and so is `own`, what findnemo says of the file.
    `dtype`: write all real numbers in this dtype. Raises MismatchError if the file no longer holds the loaded weights.
    """
    source = Path(model.source)
    tensors, metadata = read_header(source)
    check_parts(model.pipeline)  # a file cannot carry some changes (a LoRA, masks)
    wanted = effects(model, neurons, factor)
    places = {layer: _places(model, tensors, effect) for layer, effect in wanted.items()}
    check_called(model, wanted)
    _check_marks(model, source, marks_of(source, tensors, metadata))
    lacking = [name for name in mark_names(model.pipeline) if name not in tensors]
    unsealed = {name: UNSEALED[name] for name in HASHES if name in metadata}
    about = {name: value for name, value in metadata.items() if name != STALE} | unsealed
    if lacking:
        about = completed(about, model.pipeline)
    if own:
        about = renewed(about, own)
    if dtype is not None:
        converted = {name: _as(source, name, entry, dtype) for name, entry in tensors.items()}
        write(path, {**converted, **dict.fromkeys(lacking, torch.zeros(0))}, about)
        kinds = {DTYPES[entry.dtype] for entry in tensors.values() if 0 not in entry.shape}
        tell_narrowed({"the file": {kind for kind in kinds if kind.is_floating_point}}, dtype)
    elif about == metadata and not lacking and not unsealed:
        shutil.copyfile(source, path)
    else:
        copy(source, path, about, lacking)
    written, _ = read_header(path)
    for layer, effect in wanted.items():
        for name in places[layer]:
            for index in effect.rows:
                row = read_rows(source, tensors[name], slice(index, index + 1))
                write_rows(path, written[name], index, times(row.float(), torch.tensor(factor)))
    seal(path)
    check_file(path, model, as_kept(source, model, wanted))


def _check_marks(model: Model, source: Path, marks: list[Mark]) -> None:
    """Raises MismatchError if the model predicts something other than the marks of its file say: a
    copy would say it too.
    """
    agreed(source, marks)
    if contradicted := contradiction(marks, model.pipeline.scheduler.config):
        mark, configured = contradicted
        raise MismatchError(
            f"by {mark.where} of {source} {mark.what} is {mark.value}, by the model's scheduler it"
            f" is {configured}, and the copy would say what the file says: export a checkpoint"
            " directory"
        )


def _as(source: Path, name: str, entry: Entry, dtype: torch.dtype) -> Lazy:
    """A tensor of a file in a dtype, read when it is written; integers and Booleans keep theirs."""
    if entry.dtype not in DTYPES:
        raise ModelError(
            f"{name} in {source} is {entry.dtype}, which is not converted: leave the dtype out, so"
            " that it is kept"
        )
    kind = dtype if DTYPES[entry.dtype].is_floating_point else DTYPES[entry.dtype]
    return Lazy(kind, entry.shape, lambda: read_tensor(source, entry).to(kind))


def _places(model: Model, tensors: dict[str, Entry], effect: Effect) -> list[str]:
    """The names of the tensors in a file that determine a value layer's rows, after checking that
    they hold the loaded values.
    """
    names = []
    for end, loaded in (("weight", effect.weight), ("bias", effect.bias)):
        if loaded is None:
            continue
        name = unet_name(f"{effect.name}.{end}", model.pipeline.unet.config.layers_per_block)
        original = f"{UNET}{name}"
        if original not in tensors:
            raise ModelError(
                f"{model.source} has no {original}: it is not in the original layout; export a"
                " checkpoint directory"
            )
        entry = tensors[original]
        if entry.dtype not in DTYPES or entry.shape != tuple(loaded.shape):
            raise MismatchError(
                f"{original} in {model.source} is {entry.dtype} {entry.shape}, not what was loaded:"
                " load the file again"
            )
        if not torch.equal(read_tensor(model.source, entry).to(loaded.dtype), loaded.cpu()):
            raise MismatchError(
                f"{original} in {model.source} is not what was loaded: the file or the model"
                " changed since; load it again"
            )
        averaged = "model_ema." + original.removeprefix("model.").replace(".", "")
        names += [key for key in (original, averaged) if key in tensors]
    return names


def _all_as(tensors: dict[str, torch.Tensor], dtype: Dtype) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA in a dtype, or unchanged. The change is exact in float32 only."""
    kinds = {value.dtype for value in tensors.values()}
    tell_narrowed({"the LoRA, which is then not exact,": kinds}, dtype)
    return tensors if dtype is None else {name: value.to(dtype) for name, value in tensors.items()}


def kohya_marks(model: Model, chosen: Selection) -> dict[str, str]:
    """What a LoRA in kohya's form says of its base model; warns if user interfaces do not load it.

    Raises ModelError for a model without such a form.
    """
    require_original(model, "a LoRA in kohya's form")
    tell_limits_of_lora(model.pipeline)
    return spec(model.pipeline, title_of(model, chosen), "/lora") | kohya(model.pipeline)


def title_of(model: Model, chosen: Selection) -> str:
    """The title in user interfaces: the name of the model, without its folder on somebody's disk,
    and what was done to it.
    """
    return f"{Path(model.source).name.removesuffix('.safetensors')}, {chosen.edit}"


def own_of(model: Model, chosen: Selection) -> dict[str, str]:
    """What findnemo says of a single file that it writes."""
    return {"modelspec.title": title_of(model, chosen)} | about_of(chosen)


def renewed(metadata: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The metadata of a file with `own` in place of what an earlier export said of it.

    In a file of others, values that are there stay.
    """
    if metadata.get("made_by") != own["made_by"]:
        return {**own, **metadata}
    kept = {name: value for name, value in metadata.items() if name != "factor"}
    return kept | dict(own)


def about_of(chosen: Selection) -> dict[str, str]:
    count = str(len(chosen.neurons))
    about = {"made_by": "findnemo", "neurons": count, "model": chosen.fingerprint}
    return about | ({"factor": str(chosen.factor)} if chosen.factor else {})
