"""Hardening of a run's edited model, and the same checks before and after."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import findnemo
from findnemo.edits import deactivate, prune
from findnemo.errors import InputError
from findnemo.images import generate
from findnemo.models import Model
from findnemo.neurons import EMPTY
from findnemo.robustness.harden import Hardening, Lesson, harden, kept, lesson
from findnemo.runs.audit import Progress, Work, all_neurons, not_memorized
from findnemo.runs.robustness import HARDENED, OFF, Effort, against, attack_all, memorized, subject_of, trials, try_out
from findnemo.runs.store import Caption
from findnemo.runs.workers import never
from findnemo.verification import FRESH, compare_images

ORDINARY = 24  # captions that are not memorized: so many hold the model while it learns
JUDGED = 24  # and as many others judge it


def ordinary_captions(work: Work) -> tuple[list[str], list[str]]:
    """Captions that are not memorized: those that the model is held to, and others on which it is judged.

    Every second one each. Raises InputError for fewer than two.
    """
    clean = not_memorized(work.run, ORDINARY + JUDGED)
    if len(clean) < 2:
        raise InputError(f"{work.run.path} holds {len(clean)} captions that are not memorized: hardening needs two at least")
    return clean[::2], clean[1::2]


def harden_run(
    work: Work,
    captions: Sequence[Caption],
    hardening: Hardening,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
    stop: Callable[[], bool] = lambda: False,
) -> Model:
    """A copy of the run's model with all its neurons off in the weights, hardened against the attack on `captions`, in float32.

    Where the training image of a caption is unknown, an untouched image of the model stands in for it.
    """
    neurons, settings, pictures = all_neurons(work.run.captions()), work.plan.image_settings, {}
    for caption in captions:
        pictures[caption.id] = subject_of(work, caption, {}).picture
    edited = findnemo.load(prune(work.model, neurons))
    edited.denoiser.float()
    lessons: list[Lesson] = [lesson(edited, c.text, pictures[c.id], settings, hardening) for c in captions]
    harden(edited, lessons, kept(edited, ordinary_captions(work)[0], settings), neurons, hardening, checkpoint, progress, stop)
    edited.denoiser.to(work.model.dtype)
    return findnemo.load(edited.pipeline)


def check_hardened(
    work: Work,
    hardened: Model,
    effort: Effort,
    hardening: Hardening,
    progress: Progress | None = None,
    stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Attack curves, attempts and quality of the edited model and of the hardened one; kept as the run's `hardened`.

    The attack is run anew against the hardened model. `quality`: medians over captions that are not memorized, one fresh image each against
    the untouched model's: `pixel_change` (0 to 1), with judges `sscd_gen`, `a_clip_before`, `a_clip_after`.
    """
    made = [*trials(work, effort), *against(hardened, EMPTY, HARDENED, effort, hardened.fingerprint)]
    attack_all(work, effort, made, progress, stop)
    try_out(work, effort, made, progress, stop)
    prompts, off = ordinary_captions(work)[1], all_neurons(work.run.captions())
    quality: dict[str, list[dict[str, float]]] = {OFF: [], HARDENED: []}
    for prompt in prompts:
        before = generate(work.model, prompt, [FRESH], work.plan.image_settings)
        with deactivate(work.model, off):
            edited = generate(work.model, prompt, [FRESH], work.plan.image_settings)
        for name, after in ((OFF, edited), (HARDENED, generate(hardened, prompt, [FRESH], work.plan.image_settings))):
            gap = np.abs(np.asarray(before[0], np.float32) - np.asarray(after[0], np.float32)).mean() / 255
            quality[name].append({"pixel_change": float(gap)} | compare_images(prompt, before, after, work.judges))
    medians = {
        name: {key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]} for name, rows in quality.items()
    }
    about = {"settings": asdict(hardening), "model": hardened.fingerprint, "prompts": len(prompts), "quality": medians}
    work.run.set_meta("hardened", about)
    return about


def challenged(work: Work, most: int) -> list[Caption]:
    """The captions that hardening is about: the first memorized ones whose neurons are off. Raises InputError for none."""
    found = memorized(work.run.captions(), most)
    if not found:
        raise InputError(f"{work.run.path} holds no memorized caption whose neurons are off: there is nothing to harden")
    return found
