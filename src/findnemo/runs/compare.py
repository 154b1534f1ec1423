"""Every mitigation on every memorized caption of a run: finished images with it against without it (Finding NeMo, Table 1)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from PIL import Image

from findnemo.errors import FindnemoError, InputError
from findnemo.images import generate, save_png
from findnemo.mitigation import MITIGATIONS, Case
from findnemo.originals import picture
from findnemo.runs.audit import Progress, Work, neurons_of
from findnemo.runs.store import Caption
from findnemo.verification import FRESH, compare_images

NONE = "none"  # nothing mitigated: the row that all others are compared with
STAGE = "compare:"  # and the name: the stage of a mitigation in the run store
REFERENCES = 8  # captions that are not memorized, for methods that compare with such


def methods(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """The mitigations to compare, `none` first; all by default. Raises InputError naming one that is not known."""
    wanted = tuple(MITIGATIONS if names is None else names)
    for name in wanted:
        if name not in MITIGATIONS and name != NONE:
            raise InputError(f"mitigation {name!r} is not known: use {', '.join(MITIGATIONS)}")
    return (NONE, *(n for n in wanted if n != NONE))


def compare(work: Work, names: Sequence[str] | None = None, progress: Progress | None = None) -> None:
    """Make the images of every localized caption under each mitigation, judge them, and record what is found.

    What is answered is not done again. The first image of each is kept in `compare/`. A method that fails on a caption is recorded
    as failed with the reason.
    """
    wanted = methods(names)
    captions = list(work.run.captions())
    localized = localized_captions(captions)
    reference = tuple(c.text for c in captions if c.results.get("detect", {}).get("memorized") is False)[:REFERENCES]
    done, count = 0, len(localized) * len(wanted)
    for caption in localized:
        open_ = [n for n in wanted if STAGE + n not in caption.results]
        before = untouched(work, caption) if open_ else []
        done += len(wanted) - len(open_)
        for name in open_:
            if progress is not None:
                progress("compare", done, count)
            _record(work, caption, name, before, reference)
            done += 1
    if progress is not None:
        progress("compare", count, count)


def localized_captions(captions: Iterable[Caption]) -> list[Caption]:
    """Captions with neurons. Where some have a type (VM, TM), those: one without is a caption that the threshold is wrong about."""
    found = [c for c in captions if len(neurons_of(c))]
    return [c for c in found if c.type] or found


def untouched(work: Work, caption: Caption) -> list[Image.Image]:
    """The images of a caption without any mitigation: those of verification, where it has been done."""
    files = [work.run.path / "images" / caption.slug / f"before-{k:02d}.png" for k in range(len(samples(work)))]
    if all(file.is_file() for file in files):
        return [picture(file) for file in files]
    return generate(work.model, caption.text, samples(work), work.plan.image_settings)


def samples(work: Work) -> range:
    """The seeds of all images that are compared: verification's, at least two."""
    return range(FRESH, FRESH + max(work.plan.images, 2))


def _record(work: Work, caption: Caption, name: str, before: list[Image.Image], reference: tuple[str, ...]) -> None:
    began = time.monotonic()
    try:
        after = before if name == NONE else made(work, caption, mitigated(work, caption, name, reference))
        save_png(after[0], work.run.path / "compare" / caption.slug / f"{name}.png")
        payload, error = judged(work, caption, after, before), None
    except FindnemoError as problem:
        payload, error = {}, str(problem)
    work.run.record(caption.id, STAGE + name, payload, time.monotonic() - began, error)


def mitigated(work: Work, caption: Caption, name: str, reference: tuple[str, ...] = ()) -> AbstractContextManager[None]:
    """The context in which a caption is generated under a mitigation."""
    seed = work.plan.image_settings.seed
    return MITIGATIONS[name](work.model, Case(caption.text, neurons_of(caption), seed, reference))


def made(work: Work, caption: Caption, context: AbstractContextManager[None]) -> list[Image.Image]:
    """The images of a caption in a context, one a seed of the comparison."""
    with context:
        return generate(work.model, caption.text, samples(work), work.plan.image_settings)


def judged(work: Work, caption: Caption, after: list[Image.Image], before: list[Image.Image]) -> dict[str, Any]:
    """What the images of a caption are like against those without a mitigation; medians over the seeds."""
    values = compare_images(caption.text, before, after, work.judges, work.original(caption))
    return {"images": len(after)} | {
        key.removesuffix("_after"): round(value, 4) for key, value in values.items() if not key.endswith("_before")
    }
