"""Detection: which captions are memorized, by the memorization score against tau (Finding NeMo, section 3.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from findnemo.calibration import Calibration
from findnemo.deltas import Probe
from findnemo.errors import InputError
from findnemo.models import Model
from findnemo.scores import memorization_score

FIRST = 2  # seeds to begin with; one pair is enough to convict
SMALL = 24 * 24  # latents of up to so many positions: a pass costs its call more than its latents, so all seeds go at once


@dataclass(frozen=True)
class Detection:
    """`memorized`: score >= tau. `score`: largest pairwise SSIM over the first `samples` seeds: of all of them for a caption that is
    not memorized, of as many as it took for one that is. `screened`: set aside after few seeds as far below tau.
    `evaluations`: U-Net sample evaluations spent.
    """

    prompt: str
    score: float
    tau: float
    memorized: bool
    evaluations: int
    samples: int
    screened: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Screen:
    """Set a caption aside if its score after `samples` seeds is under `below`. Measured on the hold-out captions of a calibration:
    `recall`, the share of those that reach tau in the end and are not set aside (`positives` of them); `saved`, the share of all that is.
    """

    samples: int
    below: float
    recall: float
    positives: int
    saved: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def screen(calibration: Calibration, samples: int | None = None, recall: float = 0.99) -> Screen:
    """The screen with the highest `below` whose recall on the calibration's hold-out captions is at least `recall`.

    `samples`: seeds to look at first, by default four. Raises InputError for a calibration without scores (imported statistics), or
    in which no hold-out caption reaches tau.
    """
    scores = calibration.trajectories.double()
    samples = min(2 * FIRST, calibration.settings.samples - 1) if samples is None else samples
    if not 2 <= samples < calibration.settings.samples:
        raise InputError(f"a screen takes 2 to {calibration.settings.samples - 1} seeds, not {samples}")
    early, positive = scores[:, samples - 2], scores[:, -1] >= calibration.tau
    if not positive.any():
        raise InputError("this calibration cannot tell what a screen would miss: no hold-out caption in it reaches tau")
    ranked = early[positive].sort(descending=True).values
    keep = -int(-recall * len(ranked) // 1)  # rounded up
    below = float(ranked[max(keep, 1) - 1])
    return Screen(
        samples, below, float((early[positive] >= below).double().mean()), len(ranked), float((early < below).double().mean())
    )


def detect(model: Model, prompt: str, calibration: Calibration, screen: Screen | None = None) -> Detection:
    """Decide whether a prompt is memorized, with no more seeds than that takes: the same decision as with all of them.

    One pair of seeds at or over tau settles it, so a memorized caption is often known after two (models with latents of up to 24 x 24
    see all seeds in one pass, which costs them less). With a `screen` a caption that is far below tau after a few seeds is set aside,
    which can miss memorized ones: see `Screen.recall`. Raises MismatchError for a calibration of another model, NumericalError on NaN.

    >>> import findnemo
    >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
    >>> findnemo.detect(model, "a purple moon with a dotted ground", calibration).memorized
    False
    """
    calibration.check(model)
    probe, tau = Probe(model, prompt, calibration.settings), calibration.tau
    parts, seen = [], 0
    for count in _stages(model, calibration.settings.samples, screen):
        parts.append(probe.deltas(keep=range(seen, count)))
        score, seen = memorization_score(torch.cat(parts), calibration.settings.similarity), count
        aside = screen is not None and seen == screen.samples and score < min(screen.below, tau)
        if score >= tau or aside:
            break
    return Detection(prompt, score, tau, score >= tau, probe.evaluations, seen, aside)


def _stages(model: Model, samples: int, screen: Screen | None) -> list[int]:
    """How many seeds to have seen when looking: 2, 4, those of the screen, all."""
    _, height, width = model.latent_shape
    stops = {FIRST, 2 * FIRST} if height * width > SMALL else set()
    stops |= {screen.samples} if screen else set()
    return [*sorted(n for n in stops if n < samples), samples]
