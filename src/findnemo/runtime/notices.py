"""Notices to a user about a call that went on: warnings in Python, plain lines in the commands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from findnemo.errors import FindnemoWarning


def notice(text: str) -> None:
    """Warn the caller of findnemo, once."""
    warnings.warn(text, FindnemoWarning, stacklevel=3)


@contextmanager
def notices_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Send notices of the context to `tell`, unchanged, instead of raising Python's warnings."""
    shown = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], *more: object, **others: object
    ) -> None:
        if issubclass(category, FindnemoWarning):
            warnings.showwarning = shown  # so that `tell` may warn, as `notice` does
            try:
                tell(str(message))
            finally:
                warnings.showwarning = show
        else:
            shown(message, category, *more, **others)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        warnings.simplefilter("always", FindnemoWarning)
        warnings.showwarning = show
        yield


def lasting(seconds: float) -> str:
    """A duration in words, rounded to its precision.

    >>> lasting(42.4), lasting(95), lasting(1306), lasting(9000)
    ('42 s', '1.6 min', '22 min', '2.5 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{int(seconds < 10 * size)}f} {unit}"
    return f"{seconds:.0f} s"
