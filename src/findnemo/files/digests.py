"""Digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE = 1 << 20  # bytes read at once


def sha256(path: Path) -> str:
    """SHA-256 of a file of any size, hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            total.update(piece)
    return total.hexdigest()
