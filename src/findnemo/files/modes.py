"""Who may read what was written: some libraries leave their files to their owner alone, since they
write temporary ones that take another name.

    settle(Path("clean"))                               # as the umask says
    settle(Path("clean"), Like(source, source_weights)) # as the model that it was made of
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Like(NamedTuple):
    """What something is made of: the file or folder `place`, whose `weights` are this file."""

    place: Path
    weights: Path


def settle(path: Path, like: Like | None = None) -> None:
    """Give a new file, or a new folder and all in it, permissions that do not depend on what wrote
    them.

    What lies in the same place of `like` gives its permissions, else its weights do; to folders
    with an x beside each r. Without `like` they are what any new file gets here, by the umask or
    the folder's access list. The owner may always read and write. A disk without permissions keeps
    its own.
    """
    usual = _usual(path.parent) if like is None else _mode(like.weights)
    for one in (path, *path.rglob("*")):
        twin = None if like is None else like.place / one.relative_to(path)
        own = 0o700 if one.is_dir() else 0o600
        mode = usual | ((usual & 0o444) >> 2 if one.is_dir() else 0)
        if twin is not None and twin.exists() and twin.is_dir() == one.is_dir():
            mode = _mode(twin)
        beyond = stat.S_IMODE(one.stat().st_mode) & ~0o777  # such as a folder's set-group-ID
        with suppress(OSError):
            one.chmod(beyond | mode | own)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _usual(folder: Path) -> int:
    """What a new file in a folder gets. It is asked of a new file: a process can read its umask
    only by changing it for all of its threads.
    """
    probe = folder / f".{secrets.token_hex(8)}.{os.getpid()}.part"
    number = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(number).st_mode & 0o777
    finally:
        os.close(number)
        probe.unlink()
