"""Similar noise differences: a memorized caption moves every seed in the same way (Finding NeMo,
section 3.2).
"""

from __future__ import annotations

from dataclasses import replace

from findnemo.detection._score import Score
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.passes import Probe, spending
from findnemo.settings import FINDNEMO, PAPER, Settings


def ssim(
    model: Model, prompt: str, settings: ImageSettings, *, images: int = PAPER.samples
) -> Score:
    """The largest pairwise SSIM, in [-1, 1], of the noise differences of ten seeds, each in one
    pass without guidance.

    These are the paper's settings with the base seed of `settings`. With a calibration for them,
    `findnemo.detect` reaches the same decision with fewer seeds. Raises InputError for fewer than
    two images, NumericalError on NaN. Source: Finding NeMo, section 3.2.

    >>> import findnemo
    >>> ssim(findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring", findnemo.ImageSettings()).value > 0.6
    True
    """
    return _score(model, prompt, PAPER, settings.seed, images)


def agreement(
    model: Model, prompt: str, settings: ImageSettings, *, images: int = FINDNEMO.samples
) -> Score:
    """The mean pairwise SSIM, in [-1, 1], of the noise differences of four seeds, with which
    `findnemo audit` detects.

    A memorized caption moves every seed in the same way. For an ordinary caption, the largest of
    many pairs is only the luckiest one. Raises InputError for fewer than two images, NumericalError
    on NaN. Source: docs/natural.md.

    >>> import findnemo
    >>> agreement(findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring", findnemo.ImageSettings()).evaluations
    4
    """
    return _score(model, prompt, FINDNEMO, settings.seed, images)


def _score(model: Model, prompt: str, variant: Settings, seed: int, images: int) -> Score:
    if images < 2:
        raise InputError(f"a similarity is that of 2 images or more, not of {images}")
    settings = replace(variant, seed=seed, samples=images)
    with spending() as spent:
        value = Probe(model, prompt, settings).score()
    return Score(value, spent.evaluations)
