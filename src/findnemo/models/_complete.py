"""Check that a text encoder got all its weights: transformers fills missing ones with random
numbers, and only logs it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from findnemo.errors import ModelError

LOGGER = "transformers.modeling_utils"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MISSING = re.compile(  # messages of transformers 5, and of 4
    r"^\s*(\S+)\s*\|\s*MISSING|^Some weights of \S+ were not initialized .*newly initialized:"
    r" \[(.*?)\]",
    re.MULTILINE | re.DOTALL,
)
SPARE = re.compile(r"\w*(Safety|Vision)\w*")  # classes of parts that findnemo does not use


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(COLOURS.sub("", record.getMessage()))


@contextmanager
def complete(source: str) -> Iterator[None]:
    """Raises ModelError if a text encoder loaded in the context got random numbers for weights."""
    logger = logging.getLogger(LOGGER)
    kept = _Kept()
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
    for said in kept.said:
        if (lacking := MISSING.search(said)) and not SPARE.search(said):
            weight = (lacking[1] or lacking[2]).strip()[:80]
            raise ModelError(
                f"{source} lacks weights of a text encoder ({weight}), so they would be"
                " random numbers: copy the whole model, or save the pipeline again"
            )
