"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300  # seconds, which only end a test that hangs


def until(
    condition: Callable[[], bool], still: Callable[[], bool] = lambda: True, between: float = 0.005
) -> bool:
    """Look until a condition holds, or as long as something is `still` so; whether it holds.

    `between`: seconds between two looks.
    """
    deadline = time.monotonic() + PATIENCE
    while not (holds := condition()) and still() and time.monotonic() < deadline:
        time.sleep(between)
    return holds
