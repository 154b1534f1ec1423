"""The libraries are quiet while findnemo loads a model, and as before afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADS = """
import findnemo
from diffusers.utils import logging as of_diffusers
from transformers import logging as of_transformers
both = (of_diffusers, of_transformers)
before = [(each.get_verbosity(), each.is_progress_bar_enabled()) for each in both]
findnemo.load("demo")
assert before == [(each.get_verbosity(), each.is_progress_bar_enabled()) for each in both]
assert before[0][1]
"""


@pytest.mark.slow
def test_loading_a_model_in_python_prints_nothing_and_keeps_the_callers_settings():
    made = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
