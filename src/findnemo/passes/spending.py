"""What work costs: U-Net sample evaluations, counted in this one place.

One evaluation is one latent through the U-Net once, also where part of the pass is reused. Guidance
takes two, a pass with its gradient three times as many as without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Spent:
    """U-Net sample `evaluations` that were counted so far."""

    evaluations: int = 0


_open: ContextVar[tuple[Spent, ...]] = ContextVar("open", default=())


@contextmanager
def spending() -> Iterator[Spent]:
    """Count the evaluations of all passes while the context lasts.

    >>> with spending() as spent:
    ...     spend(2)
    ...     with unpaid():
    ...         spend(40)
    >>> spent.evaluations
    2
    """
    spent = Spent()
    with _counted_by((*_open.get(), spent)):
        yield spent


@contextmanager
def unpaid() -> Iterator[None]:
    """Work that is done once for all captions: no `spending` around it counts what passes
    while the context lasts.
    """
    with _counted_by(()):
        yield


@contextmanager
def _counted_by(counts: tuple[Spent, ...]) -> Iterator[None]:
    token = _open.set(counts)
    try:
        yield
    finally:
        _open.reset(token)


def spend(evaluations: int) -> None:
    """Add evaluations to every `spending` that is open."""
    for spent in _open.get():
        spent.evaluations += evaluations
