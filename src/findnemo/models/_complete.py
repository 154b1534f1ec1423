"""Check that a text encoder got all its weights: transformers fills missing ones with random
numbers, and only logs it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import BufferingHandler

from findnemo.errors import ModelError

LOGGER = "transformers.modeling_utils"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MISSING = re.compile(  # messages of transformers 5, and of 4
    r"^\s*(\S+)\s*\|\s*MISSING|^Some weights of \S+ were not initialized .*newly initialized:"
    r" \[(.*?)\]",
    re.MULTILINE | re.DOTALL,
)
SPARE = re.compile(r"\w*(Safety|Vision)\w*")  # classes of parts that findnemo does not use


@contextmanager
def complete(source: str) -> Iterator[None]:
    """Raises ModelError if a text encoder loaded in the context got random numbers for weights."""
    logger = logging.getLogger(LOGGER)
    kept = BufferingHandler(sys.maxsize)
    kept.setLevel(logging.WARNING)
    level = logger.level
    propagate = logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(kept)
    try:
        yield
    finally:
        logger.removeHandler(kept)
        logger.propagate = propagate
        logger.setLevel(level)
    for record in kept.buffer:
        said = COLOURS.sub("", record.getMessage())
        if (lacking := MISSING.search(said)) and not SPARE.search(said):
            weight = (lacking[1] or lacking[2]).strip()[:80]
            raise ModelError(
                f"{source} lacks weights of a text encoder ({weight}), so they would be"
                " random numbers: copy the whole model, or save the pipeline again"
            )
