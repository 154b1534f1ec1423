"""A small model with captions, and a finished run of it."""

from __future__ import annotations

import os

import pytest
from _command import cli
from _place import IMAGES, inputs, make_place


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A directory to run commands in (`make_place`); tests leave it as it is."""
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
