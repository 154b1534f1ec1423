"""A model with the weights of its source: exports carry these, whatever dtype a run computed in.

The source is read again in its own dtype, and used for each part whose loaded weights it equals. A
part changed since loading (by a textual inversion or a merged LoRA) is written as it is now.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from findnemo.edits import prune, rebuilt
from findnemo.errors import EditError, InputError
from findnemo.files.modes import Like
from findnemo.files.tensors import DTYPES, read_header
from findnemo.models import Lora, Model, load
from findnemo.models.content import weights_of
from findnemo.models.embedding import add_embeddings, read_embeddings
from findnemo.models.loading import from_pretrained, variant_of
from findnemo.models.lora import lora_file, of_strength, read_lora
from findnemo.models.modules import networks_of
from findnemo.models.single_file import DEMO, SHIPPED, configuration, from_single_file
from findnemo.neurons import NeuronSet
from findnemo.runtime.notices import notice, notices_to

Dtype = torch.dtype | None  # dtype of written weights; None: that of the source
OF_FILE: dict[str, tuple[str, ...]] = {  # part -> prefixes of its keys in a single file
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
# names of the layers of an attention in old autoencoders
OLD_NAMES = {
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}


@dataclass(frozen=True)
class StoredDtypes:
    """The dtypes of a part's tensors in the files of a source, by their names there."""

    dtypes: Mapping[str, torch.dtype]

    @property
    def widest(self) -> torch.dtype:
        """A dtype that holds all of them exactly."""
        kinds = [kind if kind.itemsize > 1 else torch.float32 for kind in self.dtypes.values()]
        return reduce(torch.promote_types, kinds)

    def of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, by the name in the part.

        If the loader renamed the tensor and dtypes are mixed, it is the widest one.
        """
        if len(set(self.dtypes.values())) == 1:
            return next(iter(self.dtypes.values()))
        old = reduce(lambda text, item: text.replace(*item), OLD_NAMES.items(), name)
        names = (name, f"text_model.{name}", name.removeprefix("text_model."), old)
        return next((self.dtypes[one] for one in names if one in self.dtypes), self.widest)


@dataclass(frozen=True)
class SourceModel:
    """A model whose parts named in `kept` have the values of the source, at no lower precision; the
    others are unchanged.
    """

    model: Model
    kept: Mapping[str, StoredDtypes] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """A model to export, and what its source holds: read once for all forms, and not changed.

    The source is not the loaded model: its weights have dtypes of their own, and it tells what
    changed since loading. With a LoRA, `source` and `base` are two models, read one by one. `dtype`:
    of written weights.
    """

    model: Model
    dtype: Dtype = None

    @cached_property
    def source(self) -> SourceModel:
        return of_source(self.model, self.dtype)

    @cached_property
    def base(self) -> tuple[Model, Lora, float]:
        return base_of(self.model)

    def edited(self, neurons: NeuronSet, factor: float) -> tuple[Any, Model]:
        """A pipeline with the edit in its weights, and the model with its source's weights without
        the edit.

        Weights have the dtypes of the source, or all have `dtype`.
        """
        whole = self.source.model
        pruned = prune(whole, neurons, factor)
        return _cast(pruned, whole.pipeline, self.source.kept, self.dtype), whole


def of_source(model: Model, dtype: Dtype = None) -> SourceModel:
    """A model with the weights of its source. A live pipeline has no source: the model itself is
    returned.

    Raises InputError if the source is gone and no `dtype` is given.
    """
    place = place_of(model)
    if place is None or not place.exists():
        check_source(model, dtype)
        return SourceModel(model)
    kept = _kept(model, place)
    parts = networks_of(model.pipeline)
    if all(_holds(weights_of(parts[name]), about) for name, about in kept.items()):
        return SourceModel(model, kept)
    reopened = _reopened(model, place, kept)
    again = _as_loaded(model, reopened)
    changed = {name for name in kept if name not in again or not _same(again[name], parts[name])}
    fresh = networks_of(reopened)
    for name in sorted(changed):
        width = dtype_name(next(parts[name].parameters()).dtype)
        notice(
            f"{name} is not what {model.source} holds (changed since it was loaded): written as it"
            f" is loaded, in {width}"
        )
    pipeline = model.pipeline
    for name in set(kept) - changed:
        pipeline = rebuilt(pipeline, parts[name], fresh[name])
    read_again = type(model)(pipeline, model.source)
    read_again.options = model.options
    return SourceModel(
        read_again, {name: about for name, about in kept.items() if name not in changed}
    )


def base_of(model: Model) -> tuple[Model, Lora, float]:
    """Take a model loaded with a LoRA apart: the base with its source's weights, the LoRA, and its
    strength.

    Raises InputError if the source is gone, EditError if the model is no longer the base with the
    LoRA.
    """
    file, scale = of_strength(model.options["lora"])
    others: dict[str, Any] = {
        name: value for name, value in model.options.items() if name != "lora"
    }
    place = place_of(model)
    if place is None:  # a shipped model without a file of its own
        pipeline = load(model.source, "cpu", torch.float32, **others).pipeline
    elif place.exists():
        pipeline = _reopened(model, place, _kept(model, place))
    else:
        raise InputError(
            f"{model.source} is gone, and the LoRA needs it: put it back, or name its"
            " new place (--model) together with --lora"
        )
    lora = read_lora(file, pipeline)
    parts = networks_of(model.pipeline)
    again = _with_lora(model, networks_of(pipeline), lora, scale)
    for name, part in parts.items():
        if name not in again or not _same(again[name], part):
            raise EditError(
                f"{name} is not what {model.source} and {file} make (one of them changed since it"
                " was loaded), so a LoRA on that base would not give it: export a checkpoint"
            )
    base = type(model)(pipeline, model.source)
    base.options = others
    return base, lora, scale


def with_kept(model: Model, pipeline: Any) -> Any:
    """A pipeline made from a model's, with the shared parts in the weights of the source; a new
    denoiser stays unchanged.
    """
    source = of_source(model, model.dtype)
    networks = networks_of(model.pipeline).items()
    shared = {name: part for name, part in networks if pipeline.components[name] is part}
    for name, part in shared.items():
        pipeline = rebuilt(pipeline, part, getattr(source.model.pipeline, name))
    kept = source.kept.get(model.component)
    computed = next(getattr(pipeline, model.component).parameters()).dtype
    if kept is not None and _lost(kept.dtypes.values(), computed):
        notice(
            f"the {model.component} is written in {dtype_name(computed)}, in which it was computed,"
            f" {model.source} has it in {dtype_name(kept.widest)}"
        )
    of_shared = {name: about for name, about in source.kept.items() if name in shared}
    return _cast(pipeline, model.pipeline, of_shared, None)


def check_source(model: Model, dtype: Dtype = None) -> None:
    """Raises InputError for a model whose source is gone, so that its dtype is unknown."""
    place = place_of(model)
    if place is not None and not place.exists() and dtype is None:
        raise InputError(
            f"{model.source} is gone, and exports keep the dtype of its files: put it back, name"
            " its new place (--model), or give a dtype (--dtype), in which the weights are then"
            " written as they are loaded"
        )


def place_of(model: Model) -> Path | None:
    """The file or directory that a model was loaded from; for a hub id, its directory in the local
    cache. None for a live pipeline.
    """
    source = model.source
    if source in SHIPPED:  # no file holds the other one
        return DEMO if SHIPPED[source] is None else None
    if Path(source).exists() or source.startswith((".", "/", "~")):
        return Path(source)
    if source.split(" ")[0] == "live":  # the name that `load` gives a live pipeline
        return None
    from huggingface_hub import snapshot_download

    try:
        revision = model.options.get("revision")
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except Exception:  # no such id, or not in the cache
        return Path(source)


def permissions_like(model: Model, of_lora: bool = False) -> Like | None:
    """The files whose permissions an export takes: the source with the denoiser's weights, or the
    LoRA; None without files.
    """
    if of_lora:
        place = Path(of_strength(model.options["lora"])[0])
        return Like(place, lora_file(place))
    source = place_of(model)
    if source is None or not source.exists():
        return None
    if source.is_file():
        return Like(source, source)
    weights = _files(source / model.component, model.options.get("variant"))
    return Like(source, weights[0]) if weights else None


def _kept(model: Model, place: Path) -> dict[str, StoredDtypes]:
    """Part -> what the files of a source hold of it, without parts that have no files."""
    dtypes: dict[str, dict[str, torch.dtype]] = {}
    parts = networks_of(model.pipeline)
    if place.is_file():
        keys = _dtypes(place).items()
        for name in set(parts) & set(OF_FILE):
            dtypes[name] = {key: kind for key, kind in keys if key.startswith(OF_FILE[name])}
    else:
        for name in parts:
            files = _files(place / name, model.options.get("variant"))
            dtypes[name] = {key: kind for file in files for key, kind in _dtypes(file).items()}
    return {name: StoredDtypes(of_part) for name, of_part in dtypes.items() if of_part}


def _files(folder: Path, variant: str | None) -> list[Path]:
    """The weight files of a part for a variant: its own, or the plain ones if it has none."""
    files = sorted(folder.glob("*.safetensors"))
    own = [file for file in files if variant_of(file) == variant]
    return own or [file for file in files if variant_of(file) is None]


def _dtypes(file: Path) -> dict[str, torch.dtype]:
    """Name -> dtype of the real-valued tensors of a file."""
    entries, _ = read_header(file)
    filled = {name: entry for name, entry in entries.items() if 0 not in entry.shape}
    kinds = {name: DTYPES.get(entry.dtype) for name, entry in filled.items()}
    return {name: kind for name, kind in kinds.items() if kind and kind.is_floating_point}


def _holds(state: Mapping[str, torch.Tensor], kept: StoredDtypes) -> bool:
    numbers = {name: value.dtype for name, value in state.items() if value.is_floating_point()}
    return all(kind == kept.of(name) for name, kind in numbers.items())


def _reopened(model: Model, place: Path, kept: Mapping[str, StoredDtypes]) -> Any:
    """The pipeline read again from its source, each part in a dtype that holds all of its tensors,
    with the tokens of its embeddings.
    """
    pipeline = _read_again(model, place, kept)
    if named := model.options.get("embedding"):
        add_embeddings(read_embeddings(named), pipeline)
    return pipeline


def _read_again(model: Model, place: Path, kept: Mapping[str, StoredDtypes]) -> Any:
    if place.is_file():
        folder = configuration(place, model.options.get("config"))
        usual = "config" not in model.options
        with notices_to(lambda text: None):  # its notices were given when it was loaded
            return from_single_file(place, folder, torch.float32, usual)
    widths = {name: about.widest for name, about in kept.items()} | {"default": torch.float32}
    return from_pretrained(type(model), place, widths, None, model.options.get("variant"))


def _as_loaded(model: Model, pipeline: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline that was read again, treated as `load` treats them.

    A LoRA named in the options is merged twice: in the model's dtype, to compare, and into
    `pipeline` in the dtype of the source, to write.
    """
    networks = networks_of(pipeline)
    named = model.options.get("lora")
    if named is None:
        return networks
    file, scale = of_strength(named)
    lora = read_lora(file, pipeline)
    narrow = _with_lora(model, networks, lora, scale)
    lora.merge(pipeline, scale)
    return narrow


def _with_lora(
    model: Model, networks: Mapping[str, nn.Module], lora: Lora, scale: float
) -> dict[str, nn.Module]:
    """Copies of networks in the dtype of the model, with a LoRA merged as at loading."""
    loaded = networks_of(model.pipeline)
    narrow = {
        name: copy.deepcopy(part).to(next(loaded[name].parameters()).dtype)
        for name, part in networks.items()
        if name in loaded
    }
    lora.merge(SimpleNamespace(**narrow), scale)
    return narrow


def _same(fresh: nn.Module, loaded: nn.Module) -> bool:
    """Whether a part that was read again equals the loaded one, up to rounding by its dtype."""
    new = weights_of(fresh)
    old = weights_of(loaded)
    return list(new) == list(old) and all(
        torch.equal(new[name].cpu().to(value.dtype), value.cpu()) for name, value in old.items()
    )


def _cast(pipeline: Any, live: Any, kept: Mapping[str, StoredDtypes], dtype: Dtype) -> Any:
    """A pipeline whose tensors have the dtypes of the source, or all `dtype`.

    Parts shared with `live` are copied first.
    """
    shared = {id(part) for part in networks_of(live).values()}
    before: dict[str, set[torch.dtype]] = {}
    for name, part in networks_of(pipeline).items():
        state = part.state_dict().items()
        own = {key: value.dtype for key, value in state if value.is_floating_point()}
        of_source = {key: kept[name].of(key) for key in own} if name in kept else own
        before[name] = set(of_source.values())
        wanted = of_source if dtype is None else dict.fromkeys(own, dtype)
        if own == wanted:
            continue
        changed = copy.deepcopy(part) if id(part) in shared else part
        for key, value in (*changed.named_parameters(), *changed.named_buffers()):
            if key in wanted:
                value.data = value.data.to(wanted[key])
        pipeline = rebuilt(pipeline, part, changed)
    tell_narrowed(before, dtype)
    return pipeline


def tell_narrowed(kinds: Mapping[str, Iterable[torch.dtype]], dtype: Dtype) -> None:
    """Warn, in one line, of the things with tensors of these `kinds` that `dtype` does not hold
    exactly.
    """
    if dtype is None:
        return
    lost = {what: _lost(of_one, dtype) for what, of_one in kinds.items()}
    parts = [f"{what} from {', '.join(names)}" for what, names in lost.items() if names]
    if parts:
        notice(f"narrowed to {dtype_name(dtype)}, as asked: {'; '.join(parts)}")


def _lost(kinds: Iterable[torch.dtype], dtype: torch.dtype) -> list[str]:
    """Names of those of `kinds` whose values `dtype` does not hold exactly."""
    wide = {kind for kind in kinds if kind.itemsize > 1}
    return sorted(dtype_name(kind) for kind in wide if torch.promote_types(kind, dtype) != dtype)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def as_dtype(name: str | Dtype) -> Dtype:
    """A dtype by its name. Raises InputError for one that is not supported for weights."""
    kind = getattr(torch, name, None) if isinstance(name, str) else name
    if name is not None and kind not in (torch.float32, torch.float16, torch.bfloat16):
        raise InputError(
            f"dtype {str(name)!r} is not known: use float32, float16 or bfloat16, or leave it out"
            " to keep the source's"
        )
    return kind
