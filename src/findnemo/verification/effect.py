"""What a set of neurons does to a prompt, on seeds that no search has seen: noise differences
and finished images, with it off and on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from findnemo.images import ImageSettings, generate, noise_pictures
from findnemo.metrics import Judges
from findnemo.metrics.copies import compare_images
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Probe, pictures
from findnemo.scores import SIMILARITIES, by_seed, memorization_score, pairwise, score_of
from findnemo.seeds import FRESH
from findnemo.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor


@dataclass(frozen=True)
class Verification:
    """Before and after, on seeds that no search has seen, with the finished images.

    See `verify` for `values`.

    `noise_before`, `noise_after`: as many noise differences as pictures, of the same sample
    numbers.
    """

    values: dict[str, float]
    before: list[Image.Image]
    after: list[Image.Image]
    noise_before: list[Image.Image] = field(default_factory=list)
    noise_after: list[Image.Image] = field(default_factory=list)


def verify(
    model: Model,
    prompt: str,
    neurons: NeuronSet,
    settings: Settings,
    images: int,
    image_settings: ImageSettings,
    judges: Judges | None = None,
    tau: float | None = None,
) -> Verification:
    """Compare a prompt with `neurons` on and off, on fresh seeds.

    `tau`: the threshold of the memorization score. A fresh seed whose noise difference resembles
    that of no other fresh seed so much does not replicate, and says nothing of the memory: it is
    left out, as Algorithm 1 leaves it out. Without `tau` all seeds count.

    `values` holds `score_before`, `score_after` (memorization score, of as many fresh seeds as the
    settings name); `replicating`, how many fresh seeds replicate, and `same_seed`, the largest
    similarity of a replicating seed's noise difference to its own before, which is missing where
    none does. Medians over the seeds are: with a descriptor `sscd_gen` (image with against without
    the edit, same seed), `d_sscd_before`, `d_sscd_after` (pairwise among the images of the prompt)
    and, if the training image is known, `sscd_orig_before`, `sscd_orig_after`; with a CLIP
    `a_clip_before`, `a_clip_after` (Finding NeMo, section 4); of two images or more
    `copies_before`, `copies_after`, the share of them that are copies of what another seed gave
    (`copying` .7 and more).
    """
    probe = fresh(model, prompt, settings, max(settings.samples, images))
    shown = probe.deltas(), probe.deltas(neurons)
    unblocked, blocked = (deltas[: settings.samples] for deltas in shown)  # as many as tau is of
    values = {
        "score_before": memorization_score(unblocked, settings.similarity, settings.pairs),
        "score_after": memorization_score(blocked, settings.similarity, settings.pairs),
        "replicating": len(replicating(unblocked, settings, tau)),
    }
    if (alike := same_seed(unblocked, blocked, settings, tau)) is not None:
        values["same_seed"] = alike
    before, after = (
        pictures(model, prompt, range(FRESH, FRESH + images), image_settings, off)
        for off in (EMPTY, neurons)
    )
    if images:
        values |= compare_images(prompt, before, after, judges or Judges())
    noise = (noise_pictures(deltas[:images]) for deltas in shown)
    return Verification({k: round(v, 4) for k, v in values.items()}, before, after, *noise)


def fresh(model: Model, prompt: str, settings: Settings, seeds: int | None = None) -> Probe:
    """Noise differences of a prompt on sample numbers 1000, 1001, ...:

    `seeds` of them, by default as many as the settings name.
    """
    count = settings.samples if seeds is None else seeds
    return Probe(model, prompt, settings, range(FRESH, FRESH + count))


def finished(
    model: Model,
    prompt: str,
    images: int,
    settings: ImageSettings,
    edit: AbstractContextManager[None],
) -> list[Image.Image]:
    """Finished images of a prompt, of sample numbers 1000, 1001, ..., made
    while `edit` is in force.
    """
    with edit:
        return generate(model, prompt, range(FRESH, FRESH + images), settings)


def nearest(
    images: Sequence[Image.Image], pictures: Sequence[Image.Image], descriptor: Descriptor
) -> Tensor:
    """Similarity of each image to the training picture that is most like it, (N,), in [-1, 1]."""
    return descriptor.similarity(images, pictures).amax(1)


def replicating(deltas: Tensor, settings: Settings, tau: float | None) -> list[int]:
    """Positions of the seeds that replicate, of noise differences (N, C, H, W): they resemble the
    others (`scores.by_seed`) by `tau` (Algorithm 1).

    None where their score together is under `tau`.
    """
    if tau is None:
        return list(range(len(deltas)))
    table = pairwise(deltas, settings.similarity)
    if not settings.reaches(float(score_of(table, settings.pairs)), tau):
        return []
    best = by_seed(table, settings.pairs)
    return torch.nonzero(settings.reaches(best, tau)).flatten().tolist()


def same_seed(
    unblocked: Tensor, blocked: Tensor, settings: Settings, tau: float | None = None
) -> float | None:
    """Largest similarity of a replicating seed's noise difference (N, C, H, W) with neurons
    off to its own before; None where no seed replicates: there is no memory on these
    seeds that could be gone.
    """
    kept = replicating(unblocked, settings, tau)
    return _largest(unblocked[kept], blocked[kept], settings) if kept else None


def same_seed_of_memory(
    unblocked: Tensor, blocked: Tensor, settings: Settings, tau: float | None = None
) -> float:
    """`same_seed` of a caption that is known to be memorized: where no seed
    replicates, of all seeds.
    """
    alike = same_seed(unblocked, blocked, settings, tau)
    return _largest(unblocked, blocked, settings) if alike is None else alike


def _largest(unblocked: Tensor, blocked: Tensor, settings: Settings) -> float:
    return float(SIMILARITIES[settings.similarity](unblocked, blocked).max())
