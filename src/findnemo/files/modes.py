"""Permissions of written files: some libraries leave theirs readable by the owner alone, because
they write temporary files first.

    settle(Path("clean"))                               # follow the umask
    settle(Path("clean"), Like(source, source_weights)) # take those of the original model
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Like(NamedTuple):
    """The original of something: the file or folder `place`, whose `weights` are this file."""

    place: Path
    weights: Path


def settle(path: Path, like: Like | None = None) -> None:
    """Give a new file, or a new folder and all in it, permissions that do not depend on the writer.

    They are those of the file at the corresponding place in `like`, else those of its weights;
    folders get an x for each r. Without `like` they are those of any new file here, by the umask or
    the folder's access list. The owner may always read and write. A disk without permissions is
    left alone.
    """
    usual = _usual(path.parent) if like is None else _mode(like.weights)
    for one in (path, *path.rglob("*")):
        twin = None if like is None else like.place / one.relative_to(path)
        own = 0o700 if one.is_dir() else 0o600
        mode = usual | ((usual & 0o444) >> 2 if one.is_dir() else 0)
        if twin is not None and twin.exists() and twin.is_dir() == one.is_dir():
            mode = _mode(twin)
        beyond = stat.S_IMODE(one.stat().st_mode) & ~0o777  # bits such as a folder's set-group-ID
        with suppress(OSError):
            one.chmod(beyond | mode | own)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _usual(folder: Path) -> int:
    """The permissions of a new file in a folder.

    A new file shows them: a process can read its umask only by changing it for all threads.
    """
    probe = folder / f".{secrets.token_hex(8)}.{os.getpid()}.part"
    number = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(number).st_mode & 0o777
    finally:
        os.close(number)
        probe.unlink()
