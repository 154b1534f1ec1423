"""Files that are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from findnemo.errors import InputError


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, under a temporary name first."""
    from safetensors.torch import save_file

    part = path.with_name(f".{path.name}.part")
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part, metadata={"format": "pt"})
    part.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises InputError for a file that is not safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}; remove it, and it is made again") from error


def write_json(values: Any, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
