"""What all detectors have in common: a model, a prompt and how to sample go in, a score comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from findnemo.images import ImageSettings
from findnemo.models import Model


@dataclass(frozen=True)
class Score:
    """`value`: larger is more memorized. `evaluations`: U-Net sample evaluations that it took."""

    value: float
    evaluations: int


Detector = Callable[[Model, str, ImageSettings], Score]
