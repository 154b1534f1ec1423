"""Parts of a pipeline: missing parts that findnemo needs are named, others may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from findnemo.errors import ModelError
from findnemo.models._base import Model
from findnemo.models.modules import SPARE, offloaded

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FOR = {
    "tokenizer": "reads captions with it",
    "text_encoder": "encodes captions with it",
    "unet": "seeks memorization neurons in it",
    "transformer": "seeks memorization neurons in it",
    "scheduler": "takes the noise schedule from it",
    "vae": "makes and compares finished images with it",
}


def needed(adapter: type[Model]) -> tuple[str, ...]:
    """Names of the necessary parts, in the order in which a caption passes through them."""
    encoders = [part for pair in adapter.encoders for part in pair if part not in adapter.may_lack]
    return (*encoders, adapter.component, "scheduler", *(("vae",) if adapter.decodes else ()))


def check_parts(adapter: type[Model], pipeline: Any) -> None:
    """Raises ModelError naming the parts that a live pipeline lacks, or a pair of which only one is
    there.
    """
    kind = type(pipeline).__name__
    _refuse_missing(adapter, f"this {kind}", lambda part: getattr(pipeline, part, None) is not None)
    for part in (*needed(adapter), *adapter.may_lack):
        module = getattr(pipeline, part, None)
        if not isinstance(module, nn.Module) or offloaded(module):
            continue
        if any(p.is_meta for p in module.parameters()):
            raise ModelError(
                f"{part} of this {kind} has weights on the meta device, which holds none: its file"
                " lacks them, or they were never loaded; load the whole model"
            )


def check_index(
    adapter: type[Model], index: Mapping[str, Any], source: str, folder: Path | None
) -> None:
    """Raises ModelError naming the parts that a model_index.json lacks, before anything is loaded.

    `folder`: the folder of the parts, if known; a named part may be missing there.
    """
    named = {part: home for part, home in index.items() if home not in (None, [None, None])}
    _refuse_missing(adapter, source, lambda part: part in named)
    for part in (*needed(adapter), *adapter.may_lack):
        if part in named and folder is not None and not (folder / part).is_dir():
            raise ModelError(
                f"{source} has no folder {part}, though its model_index.json names one"
                f" ({named[part][-1]}); findnemo {_for(part)}: copy the whole model"
            )


def left_out(index: Mapping[str, Any], folder: Path | None) -> list[str]:
    """Parts that are loaded as None: those that the index gives as none, and optional ones that are
    missing or pickled.

    A safety checker needs its feature extractor.
    """
    none = [part for part, home in index.items() if home == [None, None]]
    spare = [part for part in SPARE if part in index and part not in none]
    gone = [part for part in spare if folder is not None and not _usable(folder / part)]
    if "feature_extractor" in gone and "safety_checker" in {*spare} - {*gone}:
        gone.append("safety_checker")
    return [*none, *gone]


def _usable(folder: Path) -> bool:
    suffixes = {f.suffix for f in folder.iterdir()} if folder.is_dir() else set()
    return bool(suffixes) and (".safetensors" in suffixes or suffixes.isdisjoint(PICKLES))


def _refuse_missing(adapter: type[Model], what: str, has: Callable[[str], bool]) -> None:
    lacking = [part for part in needed(adapter) if not has(part)]
    if lacking:
        several = f"; nor {', '.join(lacking[1:])}" if lacking[1:] else ""
        raise ModelError(
            f"{what} has no {lacking[0]} (None){several}; findnemo {_for(lacking[0])}: give the"
            " pipeline with all its parts"
        )
    half = [part for part in adapter.may_lack if has(part)]
    if half and len(half) < len(adapter.may_lack):
        (other,) = set(adapter.may_lack) - set(half)
        raise ModelError(
            f"{what} has a {half[0]} and no {other} (None): give both, or set {half[0]} to None too"
        )


def _for(part: str) -> str:
    return next(purpose for name, purpose in FOR.items() if part.startswith(name))
