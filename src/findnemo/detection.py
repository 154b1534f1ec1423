"""Detection: which captions are memorized, by the memorization score against tau (Finding NeMo, section 3.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from findnemo.calibration import Calibration
from findnemo.deltas import Probe
from findnemo.models import Model


@dataclass(frozen=True)
class Detection:
    """`score`: largest pairwise SSIM over the seeds; `memorized`: score >= tau; `evaluations`: U-Net sample evaluations."""

    prompt: str
    score: float
    tau: float
    memorized: bool
    evaluations: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def detect(model: Model, prompt: str, calibration: Calibration) -> Detection:
    """Decide whether a prompt is memorized. Raises MismatchError for a calibration of another model, NumericalError on NaN.

    >>> import findnemo
    >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
    >>> findnemo.detect(model, "a small blue ring at night", calibration).memorized
    False
    """
    calibration.check(model)
    probe = Probe(model, prompt, calibration.settings)
    score = probe.score()
    return Detection(prompt, score, calibration.tau, score >= calibration.tau, probe.evaluations)
