"""Norms of the updates of latents along a run (Huang et al., KDD 2026, "Broken Memories").

A memory makes steps of unusual size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from findnemo.detection._score import Score, mean_score, require_images
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.models import Model
from findnemo.passes import Denoising, spending
from findnemo.prompts import ordinary

CAPTIONS = 50  # ordinary captions that give the usual sizes


def latent_updates(
    model: Model,
    prompt: str,
    settings: ImageSettings,
    *,
    images: int = 4,
    reference: Sequence[Sequence[float]] | None = None,
) -> Score:
    """S = max over steps of | || delta_t ||_2 - mu_t | / sigma_t of each image, mean over images.

    delta_t = z_t - z_{t+1} is the change of the latents in step t, in a run of `settings.steps`
    guided by `settings.guidance` (DDIM, for flows Euler, the last step to x_0; the authors use
    PNDM). mu and sigma are mean and standard deviation over ordinary captions. The rows of
    `reference` (captions, steps) hold their norms, as `updates` gives them. A run of detectors
    takes 50 hold-out captions and keeps their norms. Without a reference, 50 captions of everyday
    subjects are denoised first, at fifty times the cost of an image. Raises InputError for a
    reference of fewer than two captions or of another number of steps, NumericalError on NaN.
    Source: Huang et al. 2026, section 4.

    >>> import findnemo
    >>> model, settings = findnemo.load("demo"), findnemo.ImageSettings(steps=3, guidance=2.0)
    >>> usual = [updates(model, caption, settings) for caption in ("a red star", "a blue ring", "a green square")]
    >>> latent_updates(model, "a white ring", settings, reference=usual).evaluations
    24
    """
    with spending() as spent:
        if reference is None:
            reference = [updates(model, c, settings) for c in ordinary(CAPTIONS)]
        norms = _norms(model, prompt, settings, images)
    usual = torch.tensor(reference, dtype=norms.dtype)
    if len(usual) < 2 or usual.shape[1:] != norms.shape[1:]:
        raise InputError(
            f"a reference of shape {tuple(usual.shape)} does not say what is usual in"
            f" {settings.steps} steps: give a row of `updates` for each of two ordinary captions or"
            " more, with the settings of the run"
        )
    return mean_score(((norms - usual.mean(0)).abs() / usual.std(0)).amax(1), spent)


def updates(model: Model, prompt: str, settings: ImageSettings) -> list[float]:
    """|| delta_t ||_2 of every step of a prompt's first image: a row of the reference of
    `latent_updates`.
    """
    row: list[float] = _norms(model, prompt, settings, 1)[0].tolist()
    return row


def _norms(model: Model, prompt: str, settings: ImageSettings, images: int) -> Tensor:
    """|| delta_t ||_2 of every image and step, (images, steps), float64."""
    require_images(images)
    run = Denoising(model, prompt, images, settings.guidance, settings.seed)
    path = run.run(range(images), settings.steps)
    states = torch.stack([*(x.float() for x in path.latents), path.image])
    return states.diff(dim=0).flatten(2).norm(dim=2).T.double().cpu()
