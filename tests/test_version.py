"""The version is that of the package."""

from __future__ import annotations

from importlib.metadata import version

import findnemo
from findnemo import _version


def test_the_version_is_that_of_the_installed_package():
    assert findnemo.__version__ == _version.__version__ == version("findnemo")
