"""Exports of a run: the cleaned model as a checkpoint, a single file or a LoRA, the neurons, and a
section for a model card.

>>> list(FORMS)
['checkpoint', 'file', 'lora', 'kohya', 'adapter', 'adapter-kohya', 'neurons', 'card']

May be imported: the names below. May import: runs, edits and what lies under them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from findnemo.edits import widths_of
from findnemo.errors import EditError, InputError
from findnemo.export._adapter import write_adapter, write_adapter_kohya
from findnemo.export._card import markdown, model_card
from findnemo.export._checks import check_checkpoint
from findnemo.export._comparison import deviations, rounding_of
from findnemo.export._files import check_beside, check_target, whole, written_beside
from findnemo.export._marks import node_of_comfyui
from findnemo.export._original import ORIGINAL, original_tensors
from findnemo.export._push import push_card, with_section
from findnemo.export._selection import Selection, by_hand, select, unedited
from findnemo.export._source import Origin, as_dtype, check_source, permissions_like, with_kept
from findnemo.export._weights import (
    beside_file,
    kohya_weights,
    rewrite,
    write_checkpoint,
    write_file,
    write_kohya,
    write_lora,
)
from findnemo.files.tensors import DTYPES, NAMES, read_header
from findnemo.models import Model
from findnemo.models.identity import kept_identity, refuse_other
from findnemo.models.lora import lora_file, of_strength
from findnemo.neurons import NeuronSet
from findnemo.runs.standing import with_joined

__all__ = [
    "FORMS",
    "Form",
    "Selection",
    "as_dtype",
    "by_hand",
    "check",
    "check_checkpoint",
    "check_folder",
    "check_form",
    "check_lora",
    "check_model",
    "check_place",
    "check_target",
    "deviations",
    "kohya_weights",
    "markdown",
    "missing_beside",
    "model_card",
    "original_tensors",
    "permissions_like",
    "push_card",
    "remarks",
    "rewrite",
    "rounding_of",
    "select",
    "unedited",
    "whole",
    "with_kept",
    "with_section",
    "write",
    "write_each",
]


@dataclass(frozen=True)
class Form:
    """A form of export.

    `name`: its usual name in a folder, of a directory if it has no suffix. `write`: writes it with
    the weights of the model's source, or in another dtype. `describe`: gives its text without a model.
    `beside`: gives the content of a `.yaml` file of the same name, if any. `of_lora`: only for a
    model loaded with a LoRA. `as_file`: of a directory, the form that holds the same in one file.
    """

    name: str
    write: Callable[[Origin, Selection, Path], None] | None = None
    describe: Callable[[Selection], str] | None = None
    beside: Callable[[Model], str | None] | None = None
    of_lora: bool = False
    as_file: str = ""

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix


def neuron_file(chosen: Selection) -> str:
    """JSON that `NeuronSet.load` reads, with the neurons of every caption added."""
    captions = [
        {"row": c.row, "caption": c.text, "layers": (with_joined(c) & chosen.neurons).to_json()}
        for c in chosen.captions
    ]
    contents = {
        "format": "findnemo.neurons.1",
        "layers": chosen.neurons.to_json(),
        "factor": chosen.factor,
        "model": chosen.fingerprint,
        "captions": captions,
    }
    return json.dumps(contents, indent=1, ensure_ascii=False) + "\n"


FORMS = {
    "checkpoint": Form("checkpoint", write_checkpoint, as_file="file"),
    "file": Form("model.safetensors", write_file, beside=beside_file),
    "lora": Form("lora", write_lora, as_file="kohya"),
    "kohya": Form("kohya.safetensors", write_kohya),
    "adapter": Form("adapter.safetensors", write_adapter, of_lora=True),
    "adapter-kohya": Form("adapter-kohya.safetensors", write_adapter_kohya, of_lora=True),
    "neurons": Form("neurons.json", describe=neuron_file),
    "card": Form("card.md", describe=model_card),
}


def write(
    form: str,
    chosen: Selection,
    path: str | Path,
    model: Model | None = None,
    force: bool = False,
    dtype: str | torch.dtype | None = None,
) -> Path:
    """Write a selection of a run in one of FORMS; return the path.

    The export appears whole or not at all. It has the permissions of the files of the model's
    source, or follows the umask if there are none.

    `model`: the audited one, for forms with weights. `force`: replace an earlier export. `dtype`:
    "float32", "float16" or "bfloat16" for all weights. By default each tensor keeps its dtype in
    the model's source, whatever the run computed in (a LoRA is float32, because it has no source).
    A live pipeline is written in its present dtype. A warning says if weights are narrowed.

    Raises InputError (unknown form or dtype, an existing target, a missing source), MismatchError
    (another model than the run's or the neurons'), ModelError and EditError if the model has no
    such form.

        with Run.open("run") as run:
            chosen = findnemo.export.select(run)
        findnemo.export.write("kohya", chosen, "clean.safetensors", findnemo.load("model.safetensors"))
    """
    return dict(write_each({form: path}, chosen, model, force, dtype))[form]


def write_each(
    paths: Mapping[str, str | Path],
    chosen: Selection,
    model: Model | None = None,
    force: bool = False,
    dtype: str | torch.dtype | None = None,
) -> Iterator[tuple[str, Path]]:
    """Write a selection of a run in several forms; yield form and path of each once it is written.

    The source of the model is read once for all of them. `paths`: form -> path. The other arguments
    and the errors are those of `write`.

        paths = {"checkpoint": "clean", "kohya": "clean.safetensors"}
        for form, path in findnemo.export.write_each(paths, chosen, findnemo.load("model.safetensors")):
            print(form, path)
    """
    origin = None if model is None else Origin(model, as_dtype(dtype))
    for form, path in paths.items():
        check(form, chosen, path, model, force, dtype)
        yield form, _written(form, chosen, Path(path), origin)


def _written(form: str, chosen: Selection, target: Path, origin: Origin | None) -> Path:
    """Write a selection in one form; return the path."""
    how = FORMS[form]
    if how.describe is not None:
        with whole(target) as part:
            part.write_text(how.describe(chosen), encoding="utf-8")
            if form == "neurons" and NeuronSet.load(part) != chosen.neurons:
                raise EditError(f"{target} would not hold the neurons that were chosen")
    elif how.write is not None and origin is not None:
        like = permissions_like(origin.model, how.of_lora)
        with ExitStack() as stack:
            if how.beside is not None:
                beside = target.with_suffix(".yaml")
                own = like and like._replace(place=like.weights.with_suffix(".yaml"))
                stack.enter_context(written_beside(beside, how.beside(origin.model), own))
            how.write(origin, chosen, stack.enter_context(whole(target, like)))
    return target


def remarks(form: str, path: str | Path, model: Model | None) -> list[str]:
    """What a person must know of a written export to use it: the file beside it, the node that
    ComfyUI needs, the dtype in which plain diffusers can load it.
    """
    if form == "checkpoint":
        kinds = _dtypes(Path(path))
        return [
            f"{path} holds weights in {' and '.join(kinds)}: give from_pretrained a dtype, such as"
            " torch_dtype=torch.float32; without one, its parts may load in different ones"
        ] * (kinds != ["F32"])
    if FORMS[form].of_lora and model is not None:
        return _grown(Path(path), lora_file(of_strength(model.options["lora"])[0]))
    if FORMS[form].beside is None or model is None:
        return []
    beside = Path(path).with_suffix(".yaml")
    node = node_of_comfyui(model.pipeline) if type(model.pipeline).__name__ in ORIGINAL else None
    told = {
        f"{beside} was written too: keep it beside the file, programs read there what the file"
        " predicts": beside.is_file(),
        f"ComfyUI needs the node {node} behind this file: it reads no .yaml": node is not None,
    }
    return [line for line, holds in told.items() if holds]


def _grown(path: Path, lora: Path) -> list[str]:
    """That a LoRA is much larger than the one it was made of, if so."""
    now, then = (file.stat().st_size for file in (path, lora))
    if now < 2 * then:
        return []
    sizes = f"{now / 1e6:.1f} MB, the LoRA {then / 1e6:.1f} MB"
    return [f"{path} has {sizes}: each neuron that is off in a layer adds a rank to all layers"]


def missing_beside(path: Path, model: Model) -> Path | None:
    """The `.yaml` that a single file of the model needs beside it, if it is not there."""
    described = FORMS["file"].beside
    if not path.is_file() or described is None or described(model) is None:
        return None
    beside = path.with_suffix(".yaml")
    return None if beside.exists() else beside


def _dtypes(checkpoint: Path) -> list[str]:
    """The dtypes of real numbers in a diffusers directory, sorted."""
    files = checkpoint.glob("*/*.safetensors")
    kinds = {DTYPES[entry.dtype] for file in files for entry in read_header(file)[0].values()}
    return sorted(NAMES[kind] for kind in kinds if kind.is_floating_point)


def check(
    form: str,
    chosen: Selection,
    path: str | Path,
    model: Model | None,
    force: bool = False,
    dtype: str | torch.dtype | None = None,
) -> None:
    """Raises the errors of `write` that can be known before it writes."""
    source = chosen.about["source"] if model is None else model.source
    check_place(form, path, str(source), force)
    wanted = as_dtype(dtype)
    weights = FORMS[form].write is not None
    if model is not None:
        check_model(chosen, model)
        check_lora(form, model.options)
        if weights:
            check_source(model, wanted)
    elif weights:
        raise InputError(f"{form} holds weights: give the model")


def check_model(chosen: Selection, model: Model) -> None:
    """Raises MismatchError for another model than the one whose neurons were chosen."""
    kept = kept_identity(chosen.about["settings"].get("identity"))
    way_out = "give the audited one, or audit this one"
    refuse_other(model, chosen.fingerprint, kept, "this run", way_out)
    widths_of(model, chosen.neurons)


def check_place(form: str, path: str | Path, source: str, force: bool = False) -> None:
    """Raises InputError for a place where a form may not be written.

    `source`: place of the audited model.
    """
    check_form(form)
    target = Path(path)
    suffix = FORMS[form].suffix
    if str(target).encode(errors="ignore").decode() != str(target):
        raise InputError(
            f"{target} is not a name in UTF-8, and the libraries that write models take no other:"
            " give"
            " one, or set PYTHONUTF8=1"
        )
    if not suffix:
        check_folder(target, form, f"for one file add --to {FORMS[form].as_file}")
    check_target(target, not suffix, force, source)
    if suffix and target.suffix != suffix:
        raise InputError(f"{target} is not a name for {form}: it must end in {suffix}")
    if FORMS[form].beside is not None:
        check_beside(target.with_suffix(".yaml"), force)


def check_folder(path: str | Path, what: str, way_out: str) -> None:
    """Raises InputError for a directory named as if it were a file of one of the forms.

    `what`: what would be in the directory.
    """
    if Path(path).suffix in {how.suffix for how in FORMS.values() if how.suffix}:
        raise InputError(f"{path} is the name of a file, and {what} needs a directory: {way_out}")


def check_lora(form: str, options: Mapping[str, str]) -> None:
    """Raises InputError for a form of a LoRA, if the model's options name none."""
    if FORMS[form].of_lora and "lora" not in options:
        alone = "kohya" if form.endswith("kohya") else "lora"
        raise InputError(
            f"{form} is the LoRA of a run with the neurons off in it, and this run was made without"
            f" one (--lora): --to {alone} writes the edit alone"
        )


def check_form(form: str) -> None:
    """Raises InputError for an unknown form."""
    if form not in FORMS:
        raise InputError(f"--to {form!r} is not known: use {', '.join(FORMS)}")
