"""Files that are whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from findnemo.errors import InputError
from findnemo.files.writing import written


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, whole or not at all."""
    from safetensors.torch import save_file

    with written(path) as part:
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
            part,
            metadata={"format": "pt"},
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises InputError for a file that is not safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors: {error}; remove it, and it is made again"
        ) from error
