"""Limits on files of unknown origin: their size, and that they are regular files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from findnemo.errors import InputError

# largest neuron file or calibration.json; parsed, it takes up to sixty times as much memory
JSON_BYTES = 16 << 20
TENSOR_BYTES = 256 << 20  # largest file of statistics or neurons


def within_size(path: str | os.PathLike, most: int) -> Path:
    """The path of a file of at most `most` bytes.

    Raises InputError for a larger file, a pipe, a device, or a missing file.
    """
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(
            f"{str(path)!s:.200} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    if not stat.S_ISREG(about.st_mode):
        raise InputError(f"{path} is not a file: give one")
    if about.st_size > most:
        raise InputError(
            f"{path} has {about.st_size:,} bytes, more than the {most >> 20} MiB that such a file"
            " can need"
        )
    return Path(path)
