"""A run directory that leads outside itself is refused."""

from __future__ import annotations

import os

import pytest

from findnemo.errors import InputError
from findnemo.runs import refuse_links


@pytest.fixture
def place(tmp_path):
    """A run directory with a picture, and a file outside of it."""
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "run" / "images" / "fox").mkdir(parents=True)
    (tmp_path / "run" / "images" / "fox" / "a.png").write_bytes(b"")
    (tmp_path / "run" / "run.sqlite").write_bytes(b"")
    return tmp_path / "run"


def test_a_directory_of_its_own_files_is_taken_also_through_a_link(place):
    refuse_links(place)
    linked = place.with_name("linked")
    linked.symlink_to(place)  # the user chose it
    refuse_links(linked)


@pytest.mark.parametrize("name", ["settings.json", "images/fox/b.png", "calibration"])
def test_a_link_is_named_at_any_depth(place, name):
    (place / name).symlink_to(place.with_name("outside"))
    with pytest.raises(InputError, match=f"{name} is a link"):
        refuse_links(place)


def test_a_pipe_is_named(place):
    os.mkfifo(place / "images" / "pipe")
    with pytest.raises(InputError, match="pipe is a pipe or a device: remove it"):
        refuse_links(place)


def test_who_reads_no_picture_looks_at_what_every_command_opens(place):
    (place / "images" / "b.png").symlink_to(place.with_name("outside"))
    (place / "notes.txt").symlink_to(place.with_name("outside"))
    refuse_links(place, deep=False)
    (place / "run.sqlite-wal").symlink_to(place.with_name("outside"))
    with pytest.raises(InputError, match=r"run\.sqlite-wal is a link"):
        refuse_links(place, deep=False)


def test_files_of_trackers_are_left_alone(place):
    (place / "tracking").mkdir()
    (place / "tracking" / "latest").symlink_to(place.with_name("outside"))
    refuse_links(place)
