"""Files that are there whole or not at all: what is seen meanwhile, after an error, and in
which order the disk is told.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import _killing as killing
import pytest

from findnemo.errors import StorageError
from findnemo.files.writing import REASONS, atomic_write, storing, sweep


def test_meanwhile_and_after_an_error_the_old_content_is_there(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("old")
    with suppress(KeyboardInterrupt), atomic_write(path) as part:
        part.write_text("half of the n")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
    assert path.read_text() == "old"
    with atomic_write(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    """What a power cut leaves: fsync of the file, then the rename, then fsync of the directory."""
    told = []
    fsync = os.fsync
    replace = Path.replace

    def flushed(number: int) -> None:
        told.append(("fsync", Path(f"/proc/self/fd/{number}").readlink().name))
        fsync(number)

    def renamed(old: Path, new: Path) -> Path:
        told.append(("rename", new.name))
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic_write(tmp_path / "folder" / "a.png") as part:
        part.write_bytes(b"picture")
        name = part.name
    assert told == [("fsync", name), ("rename", "a.png"), ("fsync", "folder")]


@pytest.mark.parametrize("number", REASONS)
def test_what_a_disk_says_names_the_directory_the_reason_and_the_way_out(tmp_path, number):

    def fails(path: Path) -> None:
        with atomic_write(path) as part:
            part.write_bytes(b"half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError) as caught:
        fails(tmp_path / "a.png")
    assert str(caught.value).startswith(f"{tmp_path} cannot be written: {REASONS[number][0]}; ")
    assert "what was committed is kept" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="Is a directory") as caught, storing(tmp_path):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    assert not isinstance(caught.value, StorageError)


def test_a_sweep_takes_what_the_dead_left_and_leaves_the_living_and_the_users_own(tmp_path):
    gone = killing.forked(lambda: None)
    assert killing.ended(gone) == 0
    (tmp_path / "images").mkdir()
    stale = [
        tmp_path / f".a.png.{gone}.part",
        tmp_path / "images" / ".b.png.part",
        tmp_path / f".c.{os.getpid()}.part",
        tmp_path / f".backup.sqlite.{gone}.part-journal",
        tmp_path / f".backup.sqlite.{gone}.part-wal",
        tmp_path / f".g.{gone}-7.part",
    ]
    kept = [
        tmp_path / f".d.{os.getppid()}.part",
        tmp_path / f".backup.sqlite.{os.getppid()}.part-journal",
        tmp_path / f".h.{os.getppid()}-7.part",
        tmp_path / "my.part",
        tmp_path / "run.sqlite-wal",
        tmp_path / ".hidden",
        tmp_path / "e.png",
    ]
    for path in stale + kept:
        path.touch()
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / ".x.part").touch()
    (tmp_path / "link").symlink_to(outside)
    assert sorted(sweep(tmp_path)) == sorted(stale)
    assert all(path.exists() for path in kept)
    assert (outside / ".x.part").exists()
