"""The libraries are quiet while findnemo loads a model, and as before afterwards."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import pytest
from diffusers.utils import logging as of_diffusers
from transformers import logging as of_transformers

from findnemo.runtime.quiet import quiet_loading

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


@pytest.fixture(params=[of_diffusers, of_transformers], ids=["diffusers", "transformers"])
def library(request):
    """What a library says; afterwards it is as it was."""
    logging = request.param
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    yield logging
    logging.set_verbosity(verbosity)
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


@pytest.mark.parametrize("shows", [True, False])
def test_what_the_caller_had_set_comes_back_after_an_error(library, shows):
    library.set_verbosity_info()
    (library.enable_progress_bar if shows else library.disable_progress_bar)()
    with suppress(KeyError), quiet_loading():
        assert library.get_verbosity() == library.ERROR
        assert not library.is_progress_bar_enabled()
        raise KeyError
    assert library.get_verbosity() == library.INFO
    assert library.is_progress_bar_enabled() == shows
