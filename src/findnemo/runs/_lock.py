"""One process at a time writes to a run directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

from findnemo.errors import InputError
from findnemo.files.writing import storing
from findnemo.runs._places import refuse_links

PATIENCE = 0.2  # seconds between two looks at a directory that is in use


def acquire(path: Path, wait: bool = False) -> IO[str]:
    """Lock a run directory for this process until the returned file is closed.

    `wait`: wait until another process releases the directory.

    Raises InputError naming the process that holds the directory, or a link in it through which
    findnemo would write outside it. Raises StorageError if the directory cannot be written.
    """
    refuse_links(path)
    with storing(path):
        lock = (path / ".lock").open("a+", encoding="utf-8")
    try:
        if not lock_descriptor(lock.fileno(), blocking=wait, poll_interval=PATIENCE):
            raise InputError(
                f"{path} is in use by another findnemo process: wait for it, or give another"
                f" --out{_holder(lock)}"
            )
        with storing(path):
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
    except BaseException:
        with suppress(OSError):
            lock.close()
        raise
    return lock


def _holder(lock: IO[str]) -> str:
    """The process number that the lock file names, if any."""
    lock.seek(0)
    number = lock.read(20).split()
    return f" (its number: {number[0]})" if number and number[0].isdigit() else ""
