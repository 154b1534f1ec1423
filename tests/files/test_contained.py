"""A function in a process of its own: its result, its errors, and what becomes of a crash."""

from __future__ import annotations

import pytest

from findnemo.errors import InputError
from findnemo.files import contained
from findnemo.files.contained import call


def test_the_result_comes_back():
    assert call("posixpath", "join", "folder", "a", "b") == "folder/a/b"


def test_its_own_error_comes_back(tmp_path):
    place = str(tmp_path / "missing.csv")
    with pytest.raises(InputError, match=r"missing\.csv .*cannot be read"):
        call("findnemo.files.sizes", "within_size", place, 10)


def test_a_crash_names_the_file():
    with pytest.raises(InputError, match=r"table\.parquet: its reader ended with status 1"):
        call("findnemo.files.sizes", "no_such_function", "table.parquet")


def test_a_reader_that_takes_too_much_memory_is_ended(monkeypatch):
    monkeypatch.setattr(contained, "MEMORY", 1 << 30)
    with pytest.raises(InputError, match=r"big: its reader .*more than 1 GiB"):
        call("operator", "mul", "big", 1 << 30)


def test_a_reader_that_does_not_end_is_given_up(monkeypatch):
    monkeypatch.setattr(contained, "SECONDS", 1)
    with pytest.raises(InputError, match="60: not read in 1 s"):
        call("time", "sleep", 60)
