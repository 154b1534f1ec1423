"""The public names, and that `import findnemo` stays light."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import findnemo

HEAVY = ["torch", "diffusers", "transformers", "ray", "gradio", "polars", "numpy", "PIL"]


@pytest.mark.parametrize("name", findnemo.__all__)
def test_every_public_name_resolves(name):
    assert getattr(findnemo, name) is not None
    assert name in dir(findnemo)


def test_every_public_name_comes_from_the_module_that_defines_it():
    for name, home in findnemo._HOME.items():
        assert getattr(findnemo, name) is getattr(importlib.import_module(f"findnemo.{home}"), name)


def test_type_checkers_see_the_same_names():
    source = Path(findnemo.__file__).read_text(encoding="utf-8")
    listed = {
        line.split(" as ")[1].strip()
        for line in source.splitlines()
        if line.startswith("    from findnemo")
    }
    assert listed == set(findnemo.__all__) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nemo'"):
        findnemo.nemo  # noqa: B018


def test_importing_findnemo_imports_nothing_heavy():
    code = f"import sys, findnemo; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
