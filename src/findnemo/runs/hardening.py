"""Harden the edited model of a run, and check it before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from findnemo.edits import prune
from findnemo.errors import InputError
from findnemo.models import Model, load
from findnemo.neurons import EMPTY
from findnemo.robustness.harden import Hardening, captions_to_keep, harden, lesson
from findnemo.runs import robustness
from findnemo.runs.audit import not_memorized
from findnemo.runs.evidence import HARDENED, OFF, UNTOUCHED
from findnemo.runs.stages import Progress, no_progress
from findnemo.runs.standing import all_neurons
from findnemo.runs.store import Caption
from findnemo.runs.wording import count
from findnemo.runs.work import Work
from findnemo.runs.workers import Pool, never
from findnemo.seeds import FRESH, REFERENCE
from findnemo.stats import bootstrap
from findnemo.verification import changes, distance, pictured

ORDINARY = 24  # captions that are not memorized, on which the model must not change
JUDGED = 24  # other such captions, on which it is judged
CHECKED = 6  # captions of each kind, at most, that are attacked
IMAGES = 4  # of each caption on which it is judged


def ordinary_captions(work: Work) -> tuple[list[str], list[str]]:
    """Captions that are not memorized: those on which the model must not change, and those on which
    it is judged.

    They alternate between the two lists. The controls of the attack are only in the second list if
    there are enough others. Raises InputError for fewer than two captions.
    """
    clean = not_memorized(work.run, ORDINARY + JUDGED)
    if len(clean) < 2:
        raise InputError(
            f"{work.run.path} holds {count(len(clean), 'ordinary caption')}: hardening needs"
            " at least two"
        )
    controls = {caption.text for caption in robustness.ordinary(work.run.captions(), CHECKED)}
    return [text for text in clean[::2] if text not in controls] or clean[::2], clean[1::2]


def harden_run(
    work: Work,
    captions: Sequence[Caption],
    hardening: Hardening,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
    stop: Callable[[], bool] = never,
) -> Model:
    """A hardened copy of the run's model in float32, with all its neurons off in the weights.

    It is hardened against the attack on `captions`. If the training image of a caption is unknown,
    an image of the untouched model stands in for it.
    """
    neurons = all_neurons(work.run.captions())
    settings = work.plan.image_settings
    pictures = [robustness.subject_of(work, caption).picture for caption in captions]
    edited = load(prune(work.model, neurons))
    edited.pipeline.to(dtype=torch.float32)
    lessons = [
        lesson(edited, caption.text, picture, settings, hardening)
        for caption, picture in zip(captions, pictures, strict=True)
    ]
    held = captions_to_keep(edited, ordinary_captions(work)[0], settings)
    harden(edited, lessons, held, neurons, hardening, checkpoint, progress, stop)
    edited.pipeline.to(dtype=work.model.dtype)
    return load(edited.pipeline)


def check_hardened(
    work: Work,
    hardened: Model,
    effort: robustness.Effort,
    hardening: Hardening,
    pool: Pool | None = None,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = never,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Attack curves, attempts and side effects (`quality`) of the edited model and of the hardened
    model; the run keeps them as `hardened`.

    The hardened model is attacked from the start. `folder`: where workers can read it; without one
    this process attacks it.
    """
    identity = hardened.identity
    source = robustness.origin(work, identity.whole)
    other = hardened if folder is None else robustness.Saved(str(folder), identity.whole)
    tried = [*robustness.trials(work), *robustness.against(EMPTY, HARDENED, other, source)]
    work.run.set_meta("hardened_from", source)
    robustness.attack_all(work, effort, pool, progress, stop, tried)
    robustness.try_out(work, effort, pool, progress, stop, tried)
    prompts = ordinary_captions(work)[1]
    about = {
        "settings": asdict(hardening),
        "model": identity.fingerprint,
        "prompts": len(prompts),
        "images": IMAGES,
        "quality": side_effects(work, hardened, prompts),
    }
    work.run.set_meta("hardened", about)
    return about


def side_effects(
    work: Work, hardened: Model, prompts: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """What the edit and the hardening do to captions that are not memorized: model -> figure ->
    [value, low, high].

    Each caption gets four fresh images and counts by their mean. Values are medians over captions
    with 95 % bootstrap intervals, without interval for a single caption. `pixel_change` (0 to 1)
    and, with a descriptor, `sscd_gen` compare with the untouched model's images of the same seeds.
    With a CLIP there is `a_clip`. With a descriptor there are also `fid` and `kid` of its features
    against untouched images of other seeds. These are single values, high when images are few:
    compare them with the values of the untouched model.
    """
    images_of = partial(
        pictured,
        prompts=prompts,
        settings=work.plan.image_settings,
        judges=work.judges,
        each=IMAGES,
    )
    reference = images_of(work.model, first=REFERENCE)
    images = {UNTOUCHED: images_of(work.model, first=FRESH)}
    images[OFF] = images_of(work.model, first=FRESH, neurons=all_neurons(work.run.captions()))
    images[HARDENED] = images_of(hardened, first=FRESH)
    effects: dict[str, dict[str, list[float]]] = {}
    for name, after in images.items():
        changed = changes(images[UNTOUCHED], after)
        effects[name] = {"pixel_change": _middle(changed["pixel_change"])}
        if work.judges.descriptor is not None:
            effects[name] |= {
                "sscd_gen": _middle(changed["sscd_gen"]),
                "fid": [round(distance("fid", after, reference), 5)],
                "kid": [round(distance("kid", after, reference), 7)],
            }
        if work.judges.alignment is not None:
            effects[name]["a_clip"] = _middle(changed["a_clip_after"])
    return effects


def _middle(values: torch.Tensor) -> list[float]:
    """Median over captions of the mean of their images, and the ends of its interval."""
    rows = values.double().view(-1, IMAGES).mean(1)

    def median(x: torch.Tensor) -> float:
        return float(x.quantile(0.5))

    ends = bootstrap(median, rows) if len(rows) > 1 else ()
    return [round(v, 4) for v in (median(rows), *ends)]


def challenged(work: Work, most: int) -> list[Caption]:
    """The captions that hardening is about: memorized captions whose neurons are off.

    Raises InputError if there are none.
    """
    found = robustness.edited_captions(work.run.captions(), most)
    if not found:
        raise InputError(
            f"{work.run.path} holds no memorized caption whose neurons are off: there is nothing to"
            " harden"
        )
    return found
