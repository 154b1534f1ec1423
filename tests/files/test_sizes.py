"""Files of unknown origin: regular ones, and no larger than they can need to be."""

from __future__ import annotations

import os

import pytest

from findnemo.errors import InputError
from findnemo.files.sizes import within_size


def test_a_file_up_to_the_limit_is_taken(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b"x" * (1 << 20))
    assert within_size(str(file), 1 << 20) == file
    with pytest.raises(InputError, match="1,048,576 bytes, more than the 0 MiB"):
        within_size(file, (1 << 20) - 1)


@pytest.mark.parametrize("name", ["missing", "a\0b"])
def test_what_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        within_size(tmp_path / name, 10)


def test_a_folder_and_a_pipe_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="is not a file: give one"):
            within_size(place, 10)
