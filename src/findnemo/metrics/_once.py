"""Judges that a process opens once, however often they are sent to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

T = TypeVar("T")


@cache
def once(kind: Callable[..., T], *given: object) -> T:
    """`kind(*given)`, made once in a process.

    The steps of all stages bring the same judges to a worker.
    """
    return kind(*given)
