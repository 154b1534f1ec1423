"""The audit of a table of captions over a run directory: detect, localize, verify; every step resumes where it stopped."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo._version import __version__
from findnemo.calibration import Calibration, activations
from findnemo.deltas import group_size
from findnemo.detection import Detection, Screen, detect_many
from findnemo.errors import FindnemoError
from findnemo.images import ImageSettings, save_png, sheet
from findnemo.localization import DEFAULT, localize, most_unusual
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.prompts import Prompt
from findnemo.runs.store import Caption, Run
from findnemo.runs.trust import vouch
from findnemo.verification import Judges, Verification, grow, quality, verify

if TYPE_CHECKING:
    from PIL import Image

STAGES = ("detect", "localize", "verify")
ROUNDS = 3  # of growth, on one, two and three times as many images as are looked at in the end


@dataclass(frozen=True)
class Plan:
    """What an audit does besides the calibration's settings. `grow`: add neurons where finished images are still copies.
    `judges`: where the copy descriptor ("descriptor") and the CLIP ("clip") come from. `quality_prompts`: unrelated captions for the
    quality check."""

    search: str = DEFAULT
    screen: Screen | None = None
    images: int = 4
    grow: bool = True
    image_settings: ImageSettings = field(default_factory=ImageSettings)
    judges: Mapping[str, str] = field(default_factory=dict)
    quality_prompts: int = 16

    def settings(self, model: Model, calibration: Calibration) -> dict[str, Any]:
        """Everything a result depends on; a run directory holds results of one such set only."""
        return {
            "model": model.fingerprint,
            "dtype": str(model.dtype).removeprefix("torch."),
            "calibration": calibration.settings.to_json(),
            "tau": calibration.tau,
            "search": self.search,
            "screen": self.screen.to_json() if self.screen else None,
            "images": self.images,
            "grow": self.grow,
            "image_settings": self.image_settings.to_json(),
            "judges": dict(self.judges),
        }


@dataclass(frozen=True)
class Work:
    """What the stages need: the run, the model, the calibration, the plan, the judges and the known training images."""

    run: Run
    model: Model
    calibration: Calibration
    plan: Plan
    judges: Judges = field(default_factory=Judges)
    original: Callable[[Caption], Image.Image | None] = lambda caption: None


Progress = Callable[[str, int, int], None]
Answer = dict[str, Any] | FindnemoError


def start(out: str | Path, model: Model, calibration: Calibration, plan: Plan) -> Run:
    """Open the run directory for writing and put the calibration into it."""
    calibration.check(model)
    run = Run.create(out, plan.settings(model, calibration))
    if not (run.path / "calibration" / "calibration.json").exists():
        calibration.save(run.path / "calibration")
    remember_source(run, model)
    run.set_meta("versions", _versions())
    return run


def remember_source(run: Run, model: Model) -> None:
    """Keep where the model was found last, and how it was opened; no result depends on it."""
    run.set_meta("source", model.source)
    run.set_meta("source_options", model.options)
    vouch(run)


def audit(
    work: Work, prompts: Iterable[Prompt], stages: Sequence[str] = STAGES, progress: Progress | None = None
) -> list[Caption]:
    """Run the stages over the captions and return them with their results. What is already answered is not done again.

    A caption on which a stage fails (NaN from the model, say) is marked failed with the reason, and the rest goes on.
    """
    ids = work.run.add(prompts)
    for stage in stages:
        answered = work.run.done(stage)
        concerned = [c for c in work.run.captions(ids) if _concerns(stage, c)]
        size = group_size(work.model) if stage == "detect" else 1
        groups = [concerned[k : k + size] for k in range(0, len(concerned), size)]
        count, total = 0, sum(c.id not in answered for c in concerned)
        for group in groups:
            open_ = [c for c in group if c.id not in answered]
            if not open_:
                continue
            if progress is not None:
                progress(stage, count, total)
            _answer(work, stage, group, open_)
            count += len(open_)
        if progress is not None:
            progress(stage, total, total)
    if "verify" in stages:
        check_quality(work)
    return list(work.run.captions(ids))


def _concerns(stage: str, caption: Caption) -> bool:
    """Whether a caption needs a stage: only memorized captions are localized, only localized ones verified."""
    if stage == "localize":
        return bool(caption.results.get("detect", {}).get("memorized"))
    if stage == "verify":
        return any(caption.results.get("localize", {}).get("neurons", {}).values())
    return True


def _answer(work: Work, stage: str, group: Sequence[Caption], open_: Sequence[Caption]) -> None:
    """Do a stage of a group of captions and record those that are open.

    A group is computed whole also where a part of it is answered: what shares its passes is then the same as in an undisturbed
    audit, and so is the result, to the last bit.
    """
    began = time.monotonic()
    answers: list[Answer]
    try:
        answers = _STEPS[stage](work, group)
    except FindnemoError as problem:  # of the whole group, such as a device without memory
        answers = [problem] * len(group)
    seconds = (time.monotonic() - began) / len(group)
    for caption, answer in zip(group, answers, strict=True):
        if caption in open_:
            payload, error = ({}, str(answer)) if isinstance(answer, FindnemoError) else (answer, None)
            work.run.record(caption.id, stage, payload, seconds, error)


def _detect(work: Work, group: Sequence[Caption]) -> list[Answer]:
    answers = detect_many(work.model, [c.text for c in group], work.calibration, work.plan.screen)
    return [a.to_json() if isinstance(a, Detection) else a for a in answers]


def _localize(work: Work, caption: Caption) -> dict[str, Any]:
    return localize(work.model, caption.text, work.calibration, work.plan.search).to_json()


def _verify(work: Work, caption: Caption) -> dict[str, Any]:
    neurons, plan, original = neurons_of(caption), work.plan, work.original(caption)

    def check(off: NeuronSet) -> Verification:
        settings = work.calibration.settings
        return verify(work.model, caption.text, off, settings, plan.images, plan.image_settings, work.judges, original)

    found, result = neurons, check(neurons)
    for more in range(1, ROUNDS + 1):  # each round on more seeds of its own; those of the check stay fresh
        if not (plan.grow and result.values.get("copies_before", 0) >= 0.5 and result.values["copies_after"] > 0):
            break
        z, descriptor = work.calibration.z_scores(activations(work.model, caption.text)), work.judges.descriptor
        seeds = more * plan.images
        larger = grow(work.model, caption.text, neurons, most_unusual(z), seeds, plan.image_settings, descriptor)
        if larger is None:
            break
        if larger != neurons:
            neurons, result = larger, check(larger)
    values: dict[str, Any] = {}
    if neurons != found:
        of_more = {f"{name}:{i}": round(float(z[name][i]), 3) for name, i in neurons - found}
        values = {"grown": len(neurons) - len(found), "neurons": neurons.to_json(), "z": of_more}
    if result.before:
        images, noise = work.run.path / "images" / caption.slug, work.run.path / "noise" / caption.slug
        _save_numbered(images, before=result.before, after=result.after)
        _save_numbered(noise, before=result.noise_before, after=result.noise_after)
        if original is not None:
            small = original.copy()
            small.thumbnail(result.before[0].size)
            save_png(small, images / "original.png")
        rows = [("before", result.before), (f"after: {len(neurons)} neuron{'s' * (len(neurons) != 1)} off", result.after)]
        save_png(sheet(caption.text, rows, original), work.run.path / "sheets" / f"{caption.slug}.png")
    return {**result.values, **values}


def _save_numbered(folder: Path, **rows: Sequence[Image.Image]) -> None:
    """Write pictures as `name-00.png`, `name-01.png`, ..."""
    for name, pictures in rows.items():
        for k, picture in enumerate(pictures):
            save_png(picture, folder / f"{name}-{k:02d}.png")


_STEPS: dict[str, Callable[[Work, Sequence[Caption]], list[Answer]]] = {
    "detect": _detect,
    "localize": lambda work, group: [_localize(work, caption) for caption in group],
    "verify": lambda work, group: [_verify(work, caption) for caption in group],
}


def neurons_of(caption: Caption) -> NeuronSet:
    """The neurons found for a caption, with those that verification had to add; empty if it was not localized."""
    found, checked = (caption.results.get(stage, {}) for stage in ("localize", "verify"))
    return NeuronSet(checked.get("neurons", found.get("neurons", {})))


def all_neurons(captions: Iterable[Caption]) -> NeuronSet:
    """What is switched off for good: the neurons of all captions whose memory falls to tau, those shared by several once.

    Where not even all value neurons bring a memory down to tau, those found for it keep to the level that was reached (Algorithm 3), and
    would cost quality without taking the memory away: they stay on.
    """
    return NeuronSet.of(n for c in captions if c.results.get("localize", {}).get("reached") for n in neurons_of(c))


def check_quality(work: Work) -> None:
    """Images of captions that are not memorized, with all neurons of the run off, against before; kept as the run's `quality`."""
    captions = list(work.run.captions())
    neurons = all_neurons(captions)
    clean = [c.text for c in captions if c.results.get("detect", {}).get("memorized") is False][: work.plan.quality_prompts]
    basis = {"neurons": neurons.to_json(), "prompts": clean}
    if work.plan.images and neurons != EMPTY and clean and work.run.meta("quality_basis") != basis:
        result = quality(work.model, clean, neurons, work.plan.image_settings, work.judges)
        work.run.set_meta("quality", result)
        work.run.set_meta("quality_basis", None if result["failed"] else basis)  # what failed is tried again


def _versions() -> dict[str, str]:
    import diffusers
    import torch
    import transformers

    modules = {"torch": torch, "diffusers": diffusers, "transformers": transformers}
    return {"findnemo": __version__, "python": platform.python_version()} | {n: m.__version__ for n, m in modules.items()}
