"""The cost of work: U-Net sample evaluations, counted only here.

One evaluation is one latent through the U-Net once, even if part of the pass is reused. Guidance
takes two. A pass with its gradient takes three times as many as without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from findnemo.models import Model

T = TypeVar("T")


@dataclass
class Spent:
    """The U-Net sample `evaluations` counted so far."""

    evaluations: int = 0


_open: ContextVar[tuple[Spent, ...]] = ContextVar("open", default=())
_once: ContextVar[bool] = ContextVar("once", default=False)


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
    with _set(_open, (*_open.get(), spent)):
        yield spent


@contextmanager
def unpaid() -> Iterator[None]:
    """Do not count evaluations while the context lasts, for work that is done once for all
    captions.
    """
    with _set(_once, True), _set(_open, ()):
        yield


def is_unpaid() -> bool:
    """Whether the current work is `unpaid`."""
    return _once.get()


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a context variable another value while the context lasts."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def spend(evaluations: int) -> None:
    """Add evaluations to every open `spending`."""
    for spent in _open.get():
        spent.evaluations += evaluations


@contextmanager
def counting(model: Model) -> Iterator[Spent]:
    """Count the latents that pass through the denoiser while the context lasts, whoever calls it.

    A pass with a gradient counts three times, as everywhere.

    >>> import findnemo
    >>> model = findnemo.load("demo")
    >>> with counting(model) as spent:
    ...     _ = findnemo.generate(model, "a red star", [0, 1], findnemo.ImageSettings(3, guidance=2.0))
    >>> spent.evaluations
    12
    """

    def count(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        given = (*args, *kwargs.values())
        graded = any(isinstance(x, Tensor) and x.requires_grad for x in given)
        times = 3 if graded and torch.is_grad_enabled() else 1
        spend(times * len(args[0] if args else kwargs["hidden_states"]))

    hook = model.denoiser.register_forward_pre_hook(count, with_kwargs=True)
    with hook, spending() as spent:
        yield spent
