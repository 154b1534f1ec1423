"""A run at a glance: its five figures, the distribution of scores, and where the neurons are.

All functions are views of the store, independent of who shows them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from findnemo.calibration import Calibration
from findnemo.neurons import Neuron
from findnemo.passes import confirming_steps, quick_steps
from findnemo.runs.standing import (
    BAD,
    all_neurons,
    neurons_of,
    standing,
    state,
    switched_off,
    treated_as_memory,
    unseen,
    verification_of,
    with_joined,
)
from findnemo.runs.store import Caption, Run
from findnemo.runs.tuned import copied_of, training_of
from findnemo.runs.wording import count


class Measured(NamedTuple):
    """A value that an audit measures for a caption.

    `stage`: the stage that measures it. `before`, `after`: keys of the stage's values with the
    neurons on and off, None without such a value. `good`: which values after are good. `held`:
    whether the value after is compared with tau. `label`: its name for terminal and model card.
    `title`, `short`: its names for the report, in the paper's words and next to a caption.
    """

    stage: str
    before: str | None
    after: str | None
    good: str
    held: bool
    label: str
    title: str
    short: str

    def of(self, caption: Caption) -> tuple[float | None, float | None] | None:
        """The values before and after; None if the stage of the caption did not measure them."""
        values = caption.localized if self.stage == "localize" else verification_of(caption)
        names = (self.before, self.after)
        before, after = (None if name is None else getattr(values, name, None) for name in names)
        lacks = (self.before and before is None) or (self.after and after is None)
        return None if lacks else (before, after)


BEFORE_AFTER = (
    Measured(
        "localize", "score_before", None, "low", False,
        "memorization score, seeds of the search",
        "Memorization score on the seeds of the search",
        "Score, search seeds",
    ),
    Measured(
        "localize", None, "score_after", "low", True,
        "largest similarity of a search seed's noise difference to its own before",
        "Largest similarity of a seed's noise difference to itself before, seeds of the search",
        "A seed's similarity to itself before, search seeds",
    ),
    Measured(
        "verify", "score_before", "score_after", "low", False,
        "memorization score, fresh seeds",
        "Memorization score on fresh seeds",
        "Score, fresh seeds",
    ),
    Measured(
        "verify", None, "same_seed", "low", True,
        "largest similarity of a fresh seed's noise difference to its own before",
        "Largest similarity of a seed's noise difference to itself before",
        "A seed's similarity to itself before, fresh seeds",
    ),
    Measured(
        "verify", "copies_before", "copies_after", "low", False,
        "share of finished images that copy those of other seeds",
        "Share of finished images that copy another seed's untouched image",
        "Share of images that are copies",
    ),
    Measured(
        "verify", "largest_before", "largest_after", "low", False,
        "largest similarity of a finished image to another seed's untouched one, or to the training"
        " image",
        "Largest similarity of a finished image to another seed's untouched one, or to the training"
        " image",
        "Largest similarity of an image to a copy",
    ),
    Measured(
        "verify", "d_sscd_before", "d_sscd_after", "low", False,
        "similarity of finished images of different seeds (descriptor)",
        "D_SSCD: finished images of different seeds",
        "Similarity between seeds (D_SSCD)",
    ),
    Measured(
        "verify", "sscd_orig_before", "sscd_orig_after", "low", False,
        "similarity of finished images to the training image (descriptor)",
        "SSCD_orig: finished images against the training image",
        "Similarity to the training image (SSCD_orig)",
    ),
    Measured(
        "verify", None, "sscd_gen", "low", False,
        "similarity of finished images with and without the edit (descriptor)",
        "SSCD_gen: finished images after the edit against those before it",
        "Similarity to the same seed's image before (SSCD_gen)",
    ),
    Measured(
        "verify", "a_clip_before", "a_clip_after", "high", False,
        "fit of finished images with the caption (CLIP)",
        "A_CLIP: fit of finished images with the caption",
        "Fit with the caption (A_CLIP)",
    ),
)  # fmt: skip
PRICES = ("neurons off", "likeness to the copy", "change of ordinary captions")  # of a price list


def name_of(source: str | None) -> str:
    """The name of a model, without its folder on somebody's disk."""
    lies_here = source and (Path(source).exists() or Path(source).is_absolute())
    return Path(source).name if source and lies_here else str(source)


def sampler_of(settings: Mapping[str, Any]) -> str | None:
    """The sampler that made the images of a run; None without images.

    It is the requested sampler, else the class of the checkpoint's own.
    """
    asked = settings.get("image_settings", {}).get("sampler")
    own = (settings.get("identity") or {}).get("sampler", {}).get("settings", {}).get("class")
    return asked or (None if own is None else f"the checkpoint's, {own}")


def quickly(settings: Mapping[str, Any]) -> str:
    """How most images of a run with quick images were made, as text after their steps.

    Empty if all are made in all steps.

    >>> quickly({"images": 4, "image_settings": {"steps": 50, "guidance": 7.0}, "thorough": False})
    ' (most in 4 that stand for them, confirmed in 10)'
    """
    images = settings.get("image_settings", {})
    guidance, steps = images.get("guidance", 0.0), images.get("steps", 0)
    few = quick_steps(guidance)
    if settings.get("thorough", True) or steps <= few:
        return ""
    fine = confirming_steps(guidance, steps)
    return f" (most in {few} that stand for them, confirmed in {fine if fine < steps else 'all'})"


@dataclass(frozen=True)
class Figure:
    """One number of a run.

    An int is a count out of `of`, a float is a share of 1; `None` if the run has not come that far.
    """

    name: str
    value: int | float | None
    of: int | None = None

    @property
    def told(self) -> str:
        """The value as text.

        >>> Figure("gone", 3, 4).told, Figure("change", 0.03).told, Figure("gone", None).told
        ('3 of 4', '3.0 %', 'not known yet')
        """
        if self.value is None:
            return "not known yet"
        if isinstance(self.value, float):
            return f"{100 * self.value:.1f} %"
        return f"{self.value:,}" if self.of is None else f"{self.value:,} of {self.of:,}"


@dataclass(frozen=True)
class Bin:
    """The number of captions with a score of at least `low` and less than `high`."""

    low: float
    high: float
    captions: int


def memorized(captions: Iterable[Caption]) -> list[Caption]:
    """The captions that are memorized (`standing.state`)."""
    return [c for c in captions if state(c) == "memorized"]


def figures(captions: Sequence[Caption], quality: Mapping[str, Any] | None) -> tuple[Figure, ...]:
    """The five figures of an audit, as terminal, report and trackers show them.

    They are: captions memorized, of those with images (not known without any); memories not gone
    and memories gone (see `standing`), of those checked; neurons off; pixel change of other
    captions with all of them off. `quality`: the run's value of that name.
    """
    memories = memorized(captions)
    seen = sum(caption.detected is not None for caption in captions)
    standings = [standing(caption) for caption in memories]
    checked = [word for word in standings if word in (*BAD, "gone")]
    gone = checked.count("gone") if checked else None
    left = None if gone is None else len(checked) - gone
    is_sought = any(
        caption.localized is not None for caption in captions if treated_as_memory(caption)
    )
    is_known = memories or not any(map(unseen, captions))
    change = quality["pixel_change"] if quality and quality.get("prompts") else None
    return (
        Figure("captions memorized", len(memories) if is_known else None, seen),
        Figure("memories not gone", left, len(checked)),
        Figure("memories gone on fresh seeds", gone, len(checked)),
        Figure("neurons off", len(all_neurons(captions)) if is_sought else None),
        Figure("change of other captions' pixels", change),
    )


def glance(
    captions: Sequence[Caption], quality: Mapping[str, Any] | None, audited: int | None = None
) -> list[tuple[str, str]]:
    """Name and value of the lines that terminal and notebook show for a run: captions memorized and
    suspected, memories gone, neurons off, and the effect on other captions.

    `audited`: the number of captions looked at, if `captions` are not all of them.
    """
    known = quality or {}
    found, _, gone, off, change = figures(captions, known)
    seen = found.of if audited is None else audited
    doubted = sum(state(caption) == "suspected" for caption in captions)
    cost = change.told
    if "a_clip_before" in known:
        cost += f"; fit to them (A_CLIP) {known['a_clip_before']:.3f} \u2192 {known['a_clip_after']:.3f}"
    prompts = known.get("prompts")
    others = count(prompts, "other caption") if prompts else "other captions"
    return [
        (found.name, replace(found, of=seen).told),
        ("captions suspected", Figure("", doubted, seen).told),
        (gone.name, gone.told),
        (off.name, off.told),
        (f"change of pixels, {others}", cost),
    ]


def glance_at(run: Run, captions: Sequence[Caption], audited: int) -> list[tuple[str, str]]:
    """The lines of `glance` for a run; of a fine-tune, what became of its pictures and not of its
    captions.
    """
    lines = glance(captions, run.meta("quality"), audited)
    training = training_of(run)
    return lines if training is None else [*copied_of(training), *lines[3:]]


def scores(captions: Iterable[Caption]) -> list[float]:
    """The score of every caption on which detection ran (`Caption.score`)."""
    return [c.score for c in captions if c.detected is not None and c.score is not None]


def histogram(captions: Iterable[Caption], tau: float, bins: int = 12) -> list[Bin]:
    """The distribution of scores in about `bins` bins of equal width; empty without scores.

    The bins reach from the lowest score to the highest. `tau` is a border of two bins, so that no
    bin holds captions of both sides. Raises ValueError for less than one bin.
    """
    if bins < 1:
        raise ValueError(f"{bins} bins: give 1 or more")
    values = scores(captions)
    if not values:
        return []
    width = (max(values) - min(values)) / bins or 1 / bins
    counts = Counter(math.floor((value - tau) / width) for value in values)
    return [
        Bin(tau + k * width, tau + (k + 1) * width, counts[k])
        for k in range(min(counts), max(counts) + 1)
    ]


def layers_shown(run: Run, captions: Iterable[Caption], known: Mapping[str, int]) -> dict[str, int]:
    """The value layers to show, with their widths.

    These are the layers `known` to a calibration (the paper's), or all of the model if a neuron
    lies in another layer.
    """
    every = run.meta("widths") or {}
    found = {name for caption in captions for name in neurons_of(caption).layers}
    return dict(every) if every and not found <= set(known) else dict(known)


def value_layers(run: Run, captions: Iterable[Caption]) -> dict[str, int]:
    """`layers_shown` of a run with a calibration."""
    mean = Calibration.load(run.path / "calibration").mean
    return layers_shown(run, captions, {name: len(values) for name, values in mean.items()})


def per_layer(captions: Iterable[Caption], layers: Iterable[str]) -> dict[str, int]:
    """Layer -> number of the run's neurons that are switched off, layers in the order given."""
    off = all_neurons(captions).layers
    return {name: len(off.get(name, ())) for name in layers}


def holders(captions: Iterable[Caption]) -> dict[Neuron, list[Caption]]:
    """Neuron -> the captions that it was found for.

    Neurons of most captions come first, ties in the order of their layers.
    """
    held: dict[Neuron, list[Caption]] = {}
    for caption in captions:
        for neuron in with_joined(caption):
            held.setdefault(neuron, []).append(caption)
    order = {layer: k for k, layer in enumerate(dict.fromkeys(layer for layer, _ in held))}
    return {n: held[n] for n in sorted(held, key=lambda n: (-len(held[n]), order[n[0]], n[1]))}


def most_shared(
    captions: Iterable[Caption], most: int | None = 8
) -> list[tuple[Neuron, list[Caption]]]:
    """The neurons that several captions share, with their captions; at most `most` neurons.

    Neurons of most captions come first. Only captions whose neurons are switched off count
    (`all_neurons`).
    """
    off = [c for c in captions if len(switched_off(c))]
    return [(n, c) for n, c in holders(off).items() if len(c) > 1][:most]
