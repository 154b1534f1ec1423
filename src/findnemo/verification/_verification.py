"""Verification: is the memory gone on fresh seeds and in finished images, and is the quality intact?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from findnemo.edits import deactivate
from findnemo.errors import EditError, NumericalError
from findnemo.images import ImageSettings, generate, noise_pictures
from findnemo.localization.growth import grown
from findnemo.metrics.copies import COPY, COPYING, Judges, compare_images, copying, pixel_changes
from findnemo.models import Model
from findnemo.neurons import Neuron, NeuronSet
from findnemo.passes.deltas import Probe
from findnemo.scores import SIMILARITIES, by_seed, memorization_score, pairwise, score_of
from findnemo.seeds import FRESH, GROWTH
from findnemo.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

RANDOM = 5  # draws of random neurons that a set is compared with (Finding NeMo, section 4)
MORE = (
    32  # a set is grown by that many neurons at most: what takes more is no single memory any more
)


@dataclass(frozen=True)
class Verification:
    """Before and after, on seeds that no search has seen, with the finished images. See `verify` for `values`.

    `noise_before`, `noise_after`: as many noise differences as pictures, of the same sample numbers."""

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
    original: Image.Image | None = None,
    tau: float | None = None,
) -> Verification:
    """Compare a prompt with `neurons` on and off, on fresh seeds.

    `tau`: the threshold of the memorization score. A fresh seed whose noise difference resembles that of no other fresh seed so much does
    not replicate, and says nothing of the memory: it is left out, as Algorithm 1 leaves it out. Without `tau` all seeds count.

    `values` holds `score_before`, `score_after` (memorization score, of as many fresh seeds as the settings name); `replicating`, how many fresh seeds
    replicate, and `same_seed`, the largest similarity of a replicating seed's noise difference to its own before, which is missing where
    none does. Medians over the seeds are: with a descriptor `sscd_gen` (image with against without the edit, same seed),
    `d_sscd_before`, `d_sscd_after` (pairwise among the images of the prompt) and, if the training image is known,
    `sscd_orig_before`, `sscd_orig_after`; with a CLIP `a_clip_before`, `a_clip_after` (Finding NeMo, section 4); of two images or
    more `copies_before`, `copies_after`, the share of them that are copies of what another seed gave (`copying` .7 and more).
    """
    probe = Probe(model, prompt, settings, range(FRESH, FRESH + max(settings.samples, images)))
    shown = probe.deltas(), probe.deltas(neurons)
    unblocked, blocked = (deltas[: settings.samples] for deltas in shown)  # as many as tau is of
    values = {
        "score_before": memorization_score(unblocked, settings.similarity, settings.pairs),
        "score_after": memorization_score(blocked, settings.similarity, settings.pairs),
        "replicating": len(replicating(unblocked, settings, tau)),
    }
    if (alike := same_seed(unblocked, blocked, settings, tau)) is not None:
        values["same_seed"] = alike
    samples = range(FRESH, FRESH + images)
    before = generate(model, prompt, samples, image_settings) if images else []
    with deactivate(model, neurons):
        after = generate(model, prompt, samples, image_settings) if images else []
    if images:
        values |= compare_images(prompt, before, after, judges or Judges(), original)
    noise = (noise_pictures(deltas[:images]) for deltas in shown)
    return Verification({k: round(v, 4) for k, v in values.items()}, before, after, *noise)


def replicating(deltas: torch.Tensor, settings: Settings, tau: float | None) -> list[int]:
    """Positions of the seeds that replicate, of noise differences (N, C, H, W): they resemble the others (`scores.by_seed`) by `tau` (Algorithm 1).

    None where their score together is under `tau`."""
    if tau is None:
        return list(range(len(deltas)))
    table = pairwise(deltas, settings.similarity)
    if not settings.reaches(float(score_of(table, settings.pairs)), tau):
        return []
    best = by_seed(table, settings.pairs)
    return torch.nonzero(settings.reaches(best, tau)).flatten().tolist()


def same_seed(
    unblocked: torch.Tensor, blocked: torch.Tensor, settings: Settings, tau: float | None = None
) -> float | None:
    """Largest similarity of a replicating seed's noise difference (N, C, H, W) with neurons off to its own before; None where no seed
    replicates: there is no memory on these seeds that could be gone."""
    kept = replicating(unblocked, settings, tau)
    return (
        float(SIMILARITIES[settings.similarity](unblocked[kept], blocked[kept]).max())
        if kept
        else None
    )


def fresh_same_seed(probe: Probe, neurons: NeuronSet, tau: float) -> float:
    """`same_seed` of a memory that is known to be one: where none of the probe's seeds replicates, of all of them."""
    unblocked, blocked = probe.deltas(), probe.deltas(neurons)
    found = (same_seed(unblocked, blocked, probe.settings, level) for level in (tau, None))
    return next(value for value in found if value is not None)


def grow(
    model: Model,
    prompt: str,
    neurons: NeuronSet,
    order: Sequence[Neuron],
    images: int,
    image_settings: ImageSettings,
    descriptor: Descriptor | None = None,
) -> NeuronSet | None:
    """`neurons` and as few more as it takes until no finished image is a copy of an untouched one (`copying` under .7 for all).

    The next come in the order of `order`, 32 at most. A smallest set can satisfy the score, which looks at one noisy step, and still leave a copy
    under guidance. None if not even those are enough. `neurons` as they are for a prompt of which most untouched images are no copies of each
    other. Uses seeds of its own (2000, 2001, ...), so that verification stays fresh: no figure is of a seed that anything was decided on.
    `images`: how many of them, two or more.
    """
    samples = range(GROWTH, GROWTH + images)
    before = generate(model, prompt, samples, image_settings)
    if (copying(before, before, descriptor) >= COPY).float().mean() < COPYING:
        return neurons

    def copies(off: NeuronSet) -> bool:
        with deactivate(model, off):
            images = generate(model, prompt, samples, image_settings)
        return bool((copying(images, before, descriptor) >= COPY).any())

    return grown(neurons, [n for n in order if n not in neurons][:MORE], copies)


def quality(
    model: Model,
    prompts: Sequence[str],
    neurons: NeuronSet,
    image_settings: ImageSettings,
    judges: Judges | None = None,
    draws: int = 0,
) -> dict[str, Any]:
    """What switching off `neurons` does to prompts that are not memorized: one fresh image each, with against without.

    Medians over prompts: `pixel_change` (mean absolute difference, 0 to 1), and with judges `sscd_gen`, `a_clip_before`,
    `a_clip_after`; `each`: the same for every prompt, the smallest changes first. `failed` counts the prompts for which the model gave NaN; they are left out.
    `draws`: also with as many random neurons off instead, `random_sets`, one of so many draws a prompt in turn; their figures are called
    `random_pixel_change`, and so on. Where a layer has too few others, there are none.
    """
    try:
        others = random_sets(model, neurons, image_settings.seed, draws)
    except EditError:
        others = []
    rows = []
    for k, prompt in enumerate(prompts):
        with suppress(NumericalError):
            other = others[k % len(others)] if others else None
            rows.append(_change(model, prompt, neurons, image_settings, judges or Judges(), other))
    medians = (
        {key: round(statistics.median(r[key] for r in rows), 4) for key in rows[0]} if rows else {}
    )
    rounded = sorted(
        ({key: round(value, 4) for key, value in row.items()} for row in rows),
        key=lambda row: list(row.values()),
    )
    each = {"each": rounded} if rows else {}
    return {
        "prompts": len(rows),
        "failed": len(prompts) - len(rows),
        "neurons": len(neurons),
        **medians,
        **each,
    }


def random_sets(
    model: Model, neurons: NeuronSet, seed: int = 0, draws: int = RANDOM
) -> list[NeuronSet]:
    """Draws of as many other neurons of the same layers, none of `neurons` (the baseline of Finding NeMo, section 4).

    Raises EditError for a layer with too few others.
    """
    from findnemo.mitigation import Case
    from findnemo.mitigation.neurons import drawn

    return [drawn(model, Case("", neurons, seed), repeat) for repeat in range(1, draws + 1)]


def _change(
    model: Model,
    prompt: str,
    neurons: NeuronSet,
    image_settings: ImageSettings,
    judges: Judges,
    others: NeuronSet | None = None,
) -> dict[str, float]:
    """One fresh image of a prompt with `neurons` off against the same image before; and with `others` off instead."""
    before = generate(model, prompt, [FRESH], image_settings)
    values: dict[str, float] = {}
    for prefix, off in (("", neurons), ("random_", others)):
        if off is not None:
            with deactivate(model, off):
                after = generate(model, prompt, [FRESH], image_settings)
            made = {"pixel_change": pixel_changes(before, after)[0]} | compare_images(
                prompt, before, after, judges
            )
            values |= {
                prefix + key: value
                for key, value in made.items()
                if not (prefix and key.endswith("_before"))
            }
    return values
