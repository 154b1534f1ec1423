"""Files that appear whole or not at all, even after a kill or a power cut; and errors of the disk
in plain words, those of SQLite among them.

    with written("run/results.csv") as part:
        part.write_text("caption\\n")
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from findnemo.errors import StorageError

FULL = (
    "free some room or take another directory, then run the same command again: what was committed"
    " is kept"
)
CLOSED = "make it writable, or take another directory; what was committed is kept"
FAILS = "look at the disk, then run the same command again: what was committed is kept"
REASONS = {
    errno.ENOSPC: ("no space left on the device", FULL),
    errno.EDQUOT: ("the quota is spent", FULL),
    errno.EFBIG: ("a file would be larger than is allowed", FULL),
    errno.EROFS: ("it is read-only", CLOSED),
    errno.EACCES: ("no permission", CLOSED),
    errno.EPERM: ("no permission", CLOSED),
    errno.EIO: ("the disk reports an error", FAILS),
}
SQLITE = {  # SQLite's error about a disk -> the reason and the way out
    "database or disk is full": ("no space left on the device", FULL),
    "readonly database": ("it is read-only", CLOSED),
    "unable to open database file": ("no permission", CLOSED),
    "disk i/o error": ("the disk reports an error, or has no room", FAILS),
    "database is locked": (
        "another process holds it",
        "wait for it, then run the same command again",
    ),
}
_BESIDE = "(?:-journal|-wal|-shm)?"  # suffixes of SQLite's files next to a database
_PART = re.compile(rf"^\..+\.part{_BESIDE}$")
_OWNER = re.compile(rf"\.(\d+)(?:-\d+)?\.part{_BESIDE}$")


def cannot_be_written(folder: str | os.PathLike, error: Exception) -> StorageError | None:
    """An error of the disk in plain words; None for another error."""
    if isinstance(error, OSError):
        known = REASONS.get(error.errno or 0)
    else:
        said = str(error).lower()
        known = next((known for words, known in SQLITE.items() if words in said), None)
    if known is None:
        return None
    reason, way_out = known
    return StorageError(f"{folder} cannot be written: {reason}; {way_out}")


@contextmanager
def storing(folder: str | os.PathLike) -> Iterator[None]:
    """Raise errors of the disk in the context as StorageError naming the directory, the reason and
    the way out.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if (plain := cannot_be_written(folder, error)) is None:
            raise
        raise plain from error


@contextmanager
def atomic_write(path: str | os.PathLike, settle: bool = True) -> Iterator[Path]:
    """A temporary name next to `path` to write a file to.

    At the end it is flushed to the disk and takes the name `path`.

    On an error nothing is left, and the earlier content of `path` stays. The name is of this
    process alone: `.NAME.PID.part`; `sweep` removes the files of killed processes. `settle`: flush
    the new name too, not only the content of the file. Raises StorageError for a disk that is full,
    read-only or failing.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            flush(part)
            part.replace(path)
            if settle:
                flush(path.parent)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all; every directory is flushed once, after its last
    file.
    """
    for path, content in files.items():
        with atomic_write(path, settle=False) as part:
            part.write_bytes(content)
    for folder in {path.parent for path in files}:
        with storing(folder):
            flush(folder)


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a directory, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files that killed processes left anywhere in a directory.

    Files of live processes stay. Links are not followed.
    """
    files = (Path(root, name) for root, _, names in os.walk(os.fspath(folder)) for name in names)
    stale = [path for path in files if _PART.match(path.name) and not _owned(path.name)]
    with storing(folder):
        for path in stale:
            path.unlink(missing_ok=True)
    return stale


def _owned(name: str) -> bool:
    """Whether the temporary file belongs to another live process."""
    owner = _OWNER.search(name)
    number = int(owner[1]) if owner else 0
    if number in (0, os.getpid()) or number > 2**31 - 1:
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and belongs to somebody else
        pass
    return True
