"""What several tests of localization look at."""

from __future__ import annotations

import pytest

import findnemo
from findnemo.models import Model


@pytest.fixture(scope="session")
def natural() -> Model:
    """The demo model whose memories were learned; tests must leave it as it is."""
    return findnemo.load("demo-natural")
