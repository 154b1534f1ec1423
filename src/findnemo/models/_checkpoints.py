"""The checkpoints of a training in a directory, in the order of training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from findnemo.errors import InputError
from findnemo.models.lora import FILES, lora_file
from findnemo.runtime.notices import notice

FINAL = "final"
INDEX = "model_index.json"  # file of a diffusers pipeline


@dataclass(frozen=True)
class Checkpoint:
    """`name`: of the file or directory. `place`: the path to load."""

    name: str
    place: str


def lora_checkpoints(source: str | Path) -> list[Checkpoint]:
    """The LoRAs of a training: a file, a directory with one, or a directory with many.

    Directories such as `checkpoint-500` hold one LoRA each (diffusers, peft); files are named like
    `name-000002.safetensors` (kohya). They come in the order of their numbers; one without a number
    is the last. Raises InputError for a source without a LoRA, ModelError for a pickle.
    """
    path = Path(source)
    if not path.is_dir():
        return [Checkpoint(lora_file(path).stem, str(path))]
    found = {inner.name: inner for inner in _folders(path) if _holds_lora(inner)}
    own = [path / name for name in FILES if (path / name).is_file()]
    if own:
        return [*_ordered(found), Checkpoint(FINAL if found else path.name, str(own[0]))]
    found |= {file.stem: file for file in path.glob("*.safetensors")}
    if not found:
        raise InputError(f"{path} holds no LoRA: no .safetensors file, and no directory with one")
    return _ordered(found)


def model_checkpoints(source: str | Path) -> list[Checkpoint]:
    """The tuned models of a training: one, or a directory with a directory or file for each.

    Raises InputError for a directory without any.
    """
    path = Path(source)
    parts = [p.name for p in _folders(path) if (p / "unet").is_dir()] if path.is_dir() else []
    if (path / INDEX).is_file() and any(map(str.isdecimal, "".join(parts))):
        notice(f"{path}: {', '.join(parts)} hold a unet alone, no whole model: they are not judged")
    if not path.is_dir() or (path / INDEX).is_file():
        return [Checkpoint(path.stem or str(source), str(source))]
    found = {inner.name: inner for inner in _folders(path) if (inner / INDEX).is_file()}
    found |= {file.stem: file for file in path.glob("*.safetensors")}
    if not found:
        raise InputError(
            f"{path} holds no model: no {INDEX}, no directory with one, no .safetensors file"
        )
    return _ordered(found)


def _folders(path: Path) -> list[Path]:
    return [inner for inner in path.iterdir() if inner.is_dir() and not inner.name.startswith(".")]


def _holds_lora(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES) or (
        len(list(folder.glob("*.safetensors"))) == 1 and not (folder / INDEX).is_file()
    )


def _ordered(found: dict[str, Path]) -> list[Checkpoint]:
    names = sorted(found, key=lambda name: (_is_last(name, list(found)), _natural(name)))
    return [Checkpoint(name, str(found[name])) for name in names]


def _natural(name: str) -> list[tuple[str, int]]:
    """A name as texts and numbers, so that 500 sorts before 1000.

    >>> sorted(["a-1000-2", "a-500-10", "a-500-9"], key=_natural)
    ['a-500-9', 'a-500-10', 'a-1000-2']
    """
    parts = re.split(r"(\d+)", name)
    return list(zip(parts[::2], [*map(int, parts[1::2]), -1], strict=True))


def _is_last(name: str, others: Sequence[str]) -> bool:
    """Whether a name belongs to the end of a training: it has no number, or other names extend it
    by one.

    >>> _is_last("dog-2", ["dog-2-000001", "dog-2"]), _is_last("dog-000001", [])
    (True, False)
    """
    goes_on = re.compile(re.escape(name) + r"[-_.]")
    numbered = any(map(str.isdecimal, name))
    return not numbered or any(other != name and goes_on.match(other) for other in others)
