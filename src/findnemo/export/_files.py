"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from findnemo.errors import InputError
from findnemo.export._marks import OURS
from findnemo.files.modes import Like, settle

# a directory with one of these is an export, which may be replaced
MARKS = ("model_index.json", "pytorch_lora_weights.safetensors")


def check_target(path: Path, directory: bool, force: bool, source: str) -> None:
    """Raises InputError for a target that may not be written: the audited model, or something that
    must not be replaced.
    """
    if directory and path.is_file():
        raise InputError(f"{path} is a file: give a directory")
    if not directory and path.is_dir():
        raise InputError(f"{path} is a directory: give a file")
    if not path.exists() or (directory and not any(path.iterdir())):
        return
    if Path(source).exists() and path.samefile(source):
        raise InputError(f"{path} is the audited model itself: give another --out")
    if not force:
        raise InputError(f"{path} already exists: give another --out, or --force to replace it")
    if directory and not any((path / mark).is_file() for mark in MARKS):
        raise InputError(f"{path} is not an export, so it is not replaced: give another --out")


def check_beside(path: Path, force: bool) -> None:
    """Raises InputError for a file next to the target that user interfaces would read with it, and
    that must not be replaced. `force` may replace one from an export.
    """
    if not path.exists():
        return
    if not force:
        raise InputError(
            f"{path} already exists, and user interfaces read it with the model file of that"
            " name: give another --out, or --force to replace it"
        )
    if not path.is_file() or not path.read_bytes().startswith(OURS.encode()):
        raise InputError(
            f"{path} was not written by an export and is not replaced, and user interfaces read it"
            " with the model file of that name: give another --out, or move it away"
        )


@contextmanager
def written_beside(path: Path, text: str | None, like: Like | None = None) -> Iterator[None]:
    """Once the context ends without error, `path` holds `text`; with None, an earlier file is
    removed.
    """
    if text is not None:
        with whole(path, like) as part:
            part.write_text(text, encoding="utf-8")
            yield
    else:
        yield
        path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path, like: Like | None = None) -> Iterator[Path]:
    """A path next to `path` to write a file or directory to; once the context ends without error,
    it replaces `path`.

    Permissions follow the umask, or are those of `like`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    old = path.with_name(f".{path.name}.old")
    _remove(part)
    try:
        yield part
        settle(part, like)
        if path.is_dir():
            _remove(old)
            path.rename(old)
        part.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        _remove(part)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
