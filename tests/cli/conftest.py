"""A place with a model and captions, and an audit of it."""

from __future__ import annotations

import os

import pytest
from _command import cli
from _place import IMAGES, inputs, make_place

from findnemo.cli._common import stderr, stdout


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """`model`, `captions.csv`, `holdout.txt` and `calibration`; tests leave them as they are."""
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def usual(place):
    """The arguments that most commands share."""
    return (place / "model", *inputs(place))


@pytest.fixture(scope="session")
def audited(place, usual, tmp_path_factory):
    """A finished run; tests leave it as it is."""
    out = tmp_path_factory.mktemp("audited") / "run"
    before = os.umask(0o002)  # of people who share a group
    result = cli("audit", *usual, *IMAGES, "--out", out)
    os.umask(before)
    assert (result.status, result.err.count("error")) == (0, 0), result.err
    return out


@pytest.fixture
def wide_as_the_environment_says(monkeypatch):
    """Consoles that were made under another COLUMNS would keep it."""
    for console in (stdout, stderr):
        monkeypatch.setattr(console, "_width", None)
