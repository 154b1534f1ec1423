"""The libraries' own progress bars and advice, kept off the terminal."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and advice off the terminal."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    _silence()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep them off while a model is loaded; then all is as the caller had set it."""
    before = [(each, each.get_verbosity(), each.is_progress_bar_enabled()) for each in _loggings()]
    with warnings.catch_warnings():
        try:
            _silence()
            yield
        finally:
            for logging, verbosity, shows in before:
                logging.set_verbosity(verbosity)
                if shows:
                    logging.enable_progress_bar()


def _silence() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    for logging in _loggings():
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def _loggings() -> tuple[Any, Any]:
    """The settings of the two libraries that load models."""
    import transformers
    from diffusers.utils import logging

    return transformers.logging, logging
