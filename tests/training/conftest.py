"""A training folder."""

from __future__ import annotations

import pytest
from _photos import SMALL, photos

from findnemo.training import plant


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Four pictures and twelve canaries."""
    place = photos(tmp_path_factory.mktemp("training") / "photos")
    plant(place, **SMALL)
    return place
