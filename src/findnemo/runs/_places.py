"""Refuse run directories that lead outside themselves: a run may come from somebody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from findnemo.errors import InputError

# prefixes of the names that every command opens
READ = ("run.sqlite", ".lock", "settings.json", "calibration", "export", "studies")
THEIRS = "tracking"  # files of trackers, links among them; findnemo opens none of them


def refuse_links(path: Path, deep: bool = True) -> None:
    """Raises InputError naming a link, a pipe or a device in a run directory.

    `deep`: search the folders of the directory too; for commands that write or show pictures.

    The run directory itself may be a link: the user chose it.
    """
    for entry in _entries(path, deep):
        if not deep and not entry.name.startswith(READ):
            continue
        if entry.is_symlink():
            raise InputError(
                f"{entry.path} is a link: what it leads to is neither read nor written; put the"
                " real thing in its place"
            )
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            raise InputError(f"{entry.path} is a pipe or a device: remove it")


def _entries(path: Path | str, deep: bool) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            yield entry
            if deep and entry.is_dir(follow_symlinks=False) and entry.name != THEIRS:
                yield from _entries(entry.path, deep)
