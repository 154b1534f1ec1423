"""Permissions of what is written do not depend on who wrote it."""

from __future__ import annotations

import os
import stat

import pytest

from findnemo.files.modes import Like, settle


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """The umask of a group that shares its files."""
    old = os.umask(0o027)
    yield
    os.umask(old)


def test_what_a_library_hid_is_as_readable_as_any_new_file(tmp_path, umask):
    folder = tmp_path / "out"
    (folder / "part").mkdir(parents=True)
    file = folder / "part" / "weights"
    file.touch(mode=0o600)
    (folder / "part").chmod(0o700)
    settle(folder)
    assert (mode(folder), mode(folder / "part"), mode(file)) == (0o750, 0o750, 0o640)


def test_permissions_are_those_of_the_original(tmp_path):
    original = tmp_path / "model"
    original.mkdir()
    for name, bits in (("weights", 0o640), ("config", 0o444)):
        (original / name).touch()
        (original / name).chmod(bits)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("weights", "config", "added"):
        (copy / name).touch()
    settle(copy, Like(original, original / "weights"))
    # the owner may always write; what has no counterpart is like the weights
    found = [mode(copy / name) for name in ("weights", "config", "added")]
    assert found == [0o640, 0o644, 0o640]


def test_nothing_is_left_of_the_look_at_the_umask(tmp_path):
    file = tmp_path / "one"
    file.touch()
    settle(file)
    assert [one.name for one in tmp_path.iterdir()] == ["one"]
