"""Robustness: attacks on an edited model, each with its controls.

May be imported: the names below and the modules here. May import: mitigation, passes, images,
metrics and what lies under them.
"""

from findnemo.robustness._subject import AttackedCaption, closeness, subject
from findnemo.robustness.attack import (
    STARTS,
    STEPS,
    attack,
    cost,
    diffusion_loss,
    embedded,
    optimized,
)
from findnemo.robustness.attempts import ATTEMPTS, Attempt, image_to_image

__all__ = [
    "ATTEMPTS",
    "STARTS",
    "STEPS",
    "AttackedCaption",
    "Attempt",
    "attack",
    "closeness",
    "cost",
    "diffusion_loss",
    "embedded",
    "image_to_image",
    "optimized",
    "subject",
]
