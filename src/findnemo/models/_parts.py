"""Parts of a pipeline: those that findnemo needs are named where they are missing, those that it does not need may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from findnemo.errors import ModelError
from findnemo.models._base import Model
from findnemo.models._modules import offloaded

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SPARE = (
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "watermarker",
)  # findnemo asks nothing of them
FOR = {
    "tokenizer": "reads captions with it",
    "text_encoder": "encodes captions with it",
    "unet": "seeks memorization neurons in it",
    "transformer": "seeks memorization neurons in it",
    "scheduler": "takes the noise schedule from it",
    "vae": "makes and compares finished images with it",
}


def needed(adapter: type[Model]) -> tuple[str, ...]:
    """Names of the parts without which nothing can be done, in the order in which a caption goes through them."""
    encoders = [part for pair in adapter.encoders for part in pair if part not in adapter.may_lack]
    return (*encoders, adapter.component, "scheduler", *(("vae",) if adapter.decodes else ()))


def check_parts(adapter: type[Model], pipeline: Any) -> None:
    """Raises ModelError naming the parts that a live pipeline lacks, or of which only one half of a pair is there."""
    kind = type(pipeline).__name__
    _refuse_missing(adapter, f"this {kind}", lambda part: getattr(pipeline, part, None) is not None)
    for part in _there(adapter, pipeline):
        module = getattr(pipeline, part)
        if (
            isinstance(module, torch.nn.Module)
            and not offloaded(module)
            and any(p.is_meta for p in module.parameters())
        ):
            raise ModelError(
                f"{part} of this {kind} has weights on the meta device, which holds none: its file lacks them, or they were never loaded; load the whole "
                "model"
            )


def check_index(
    adapter: type[Model], index: Mapping[str, Any], source: str, folder: Path | None
) -> None:
    """The same for what a model_index.json names, before anything of it is loaded. `folder`: where the parts lie, if that is known."""
    named = {
        part: home
        for part, home in index.items()
        if not part.startswith("_") and home not in (None, [None, None])
    }
    _refuse_missing(adapter, source, lambda part: part in named)
    gone = [
        p
        for p in (*needed(adapter), *adapter.may_lack)
        if p in named and folder is not None and not (folder / p).is_dir()
    ]
    if gone:
        raise ModelError(
            f"{source} has no folder {gone[0]}, though its model_index.json names one ({named[gone[0]][-1]}); findnemo {_for(gone[0])}: copy the "
            "whole model"
        )


def left_out(index: Mapping[str, Any], folder: Path | None) -> list[str]:
    """Parts that are loaded as None: those that the index says are none, and spare ones that are not there or pickled.

    A safety checker is nothing without its feature extractor.
    """
    none = [part for part, home in index.items() if home == [None, None]]
    gone = [
        part
        for part in SPARE
        if part in index and part not in none and folder is not None and not _usable(folder / part)
    ]
    if (
        "feature_extractor" in gone
        and "safety_checker" not in [*none, *gone]
        and "safety_checker" in index
    ):
        gone.append("safety_checker")
    return [*none, *gone]


def _usable(folder: Path) -> bool:
    files = [f.suffix for f in folder.iterdir()] if folder.is_dir() else []
    return bool(files) and (
        ".safetensors" in files or not any(suffix in PICKLES for suffix in files)
    )


def _there(adapter: type[Model], pipeline: Any) -> list[str]:
    return [
        p for p in (*needed(adapter), *adapter.may_lack) if getattr(pipeline, p, None) is not None
    ]


def _refuse_missing(adapter: type[Model], what: str, has: Callable[[str], bool]) -> None:
    lacking = [part for part in needed(adapter) if not has(part)]
    if lacking:
        several = f"; nor {', '.join(lacking[1:])}" if lacking[1:] else ""
        raise ModelError(
            f"{what} has no {lacking[0]} (None){several}; findnemo {_for(lacking[0])}: give the pipeline with all its parts"
        )
    half = [part for part in adapter.may_lack if has(part)]
    if half and len(half) < len(adapter.may_lack):
        (other,) = set(adapter.may_lack) - set(half)
        raise ModelError(
            f"{what} has a {half[0]} and no {other} (None): give both, or set {half[0]} to None too"
        )


def _for(part: str) -> str:
    return next(purpose for name, purpose in FOR.items() if part.startswith(name))
