"""Detection: which captions are memorized.

NeMo's score with no more seeds than it takes, and the competing detectors beside it.

>>> sorted(DETECTORS)[:4]
['agreement', 'anisotropy', 'bright-ending', 'curvature']

May be imported: the names below and the detectors as modules. May import: calibration, metrics,
images and what lies under them.
"""

from collections.abc import Callable

from findnemo.detection import (
    anisotropy,
    bright_ending,
    curvature,
    dsm,
    entropy,
    latent_updates,
    magnitude,
    one_step,
    sharpness,
    ssim,
)
from findnemo.detection._score import Detector, Score
from findnemo.detection.evaluation import Evaluation, evaluate
from findnemo.detection.sequential import Detection, detect, detect_many
from findnemo.images import ImageSettings
from findnemo.models import Model

DETECTORS: dict[str, Detector] = {
    "agreement": ssim.agreement,
    "ssim": ssim.ssim,
    "magnitude": magnitude.magnitude,
    "entropy-d": entropy.entropy_d,
    "entropy-e": entropy.entropy_e,
    "one-step": one_step.one_step,
    "edges": one_step.edges,
    "bright-ending": bright_ending.bright_ending,
    "anisotropy": anisotropy.anisotropy,
    "sharpness": sharpness.sharpness,
    "curvature": curvature.curvature,
    "dsm": dsm.dsm,
    "latent-updates": latent_updates.latent_updates,
}

# detector -> what it has to know of an ordinary caption; it takes a row for each as `reference`
REFERENCES: dict[str, Callable[[Model, str, ImageSettings], list[float]]] = {
    "latent-updates": latent_updates.updates
}

__all__ = [
    "DETECTORS",
    "REFERENCES",
    "Detection",
    "Detector",
    "Evaluation",
    "Score",
    "detect",
    "detect_many",
    "evaluate",
]
