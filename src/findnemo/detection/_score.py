"""The common interface of detectors: a model, a prompt and sampling settings give a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from findnemo.errors import InputError, NumericalError
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.passes import Spent
from findnemo.scores import NOT_FINITE


@dataclass(frozen=True)
class Score:
    """`value`: larger means more memorized. `evaluations`: U-Net sample evaluations spent."""

    value: float
    evaluations: int


Detector = Callable[[Model, str, ImageSettings], Score]


def require_images(images: int) -> None:
    """Raises InputError for fewer than one image."""
    if images < 1:
        raise InputError(f"a detector looks at 1 image or more, not {images}")


def require_finite(values: Tensor) -> None:
    """Raises NumericalError if a value is NaN or infinite."""
    if not torch.isfinite(values).all():
        raise NumericalError(NOT_FINITE)


def mean_score(values: Tensor, spent: Spent) -> Score:
    """The mean over images, `values` (n,), as a score.

    Raises NumericalError if a value is NaN or infinite.
    """
    require_finite(values)
    return Score(float(values.double().mean()), spent.evaluations)
