"""Files of unknown origin: how large they may be, and that they are files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from findnemo.errors import InputError

# of a neuron file or a calibration.json; parsed, it takes up to sixty times as much memory
JSON_BYTES = 16 << 20
TENSOR_BYTES = 256 << 20  # of a file of statistics or neurons


def checked(path: str | os.PathLike, most: int) -> Path:
    """The path of a file of `most` bytes at most.

    Raises InputError for a larger one, a pipe, a device, or none at all.
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
