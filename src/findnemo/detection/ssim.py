"""Similar noise differences (Finding NeMo, section 3.2): a memorized caption sends every seed the same way."""

from __future__ import annotations

from dataclasses import replace

from findnemo.deltas import Probe
from findnemo.detection._score import Score
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.settings import PAPER


def ssim(model: Model, prompt: str, settings: ImageSettings, *, images: int = PAPER.samples) -> Score:
    """The largest pairwise SSIM, in [-1, 1], of the noise differences of ten seeds, in one pass each and without guidance.

    The paper's settings with the base seed of `settings`; `findnemo.detect` comes to the same decision with fewer seeds. Raises
    InputError for fewer than two images, NumericalError on NaN. Source: Finding NeMo, section 3.2.

    >>> import findnemo
    >>> ssim(findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring", findnemo.ImageSettings()).value > 0.6
    True
    """
    probe = Probe(model, prompt, replace(PAPER, seed=settings.seed, samples=images))
    return Score(probe.score(), probe.evaluations)
