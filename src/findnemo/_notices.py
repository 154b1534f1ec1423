"""What a user should know of a call that went on: warnings in Python, plain lines in the commands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Notice(UserWarning):
    """Something was decided for the user, who may want to know it; nothing is wrong."""


def notice(text: str) -> None:
    """Say something once to whoever called into findnemo."""
    warnings.warn(text, Notice, stacklevel=3)


@contextmanager
def told_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Give notices of the context to `tell`, each as it stands, in place of Python's warnings."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *more: object, **others: object) -> None:
        if issubclass(category, Notice):
            tell(str(message))
        else:
            shown(message, category, *more, **others)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield
