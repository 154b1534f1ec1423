"""The audit of a table of captions over a run directory: detect, localize, verify; every step resumes where it stopped."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo._version import __version__
from findnemo.calibration import Calibration
from findnemo.detection import Screen, detect
from findnemo.errors import FindnemoError
from findnemo.images import ImageSettings, save_png, sheet
from findnemo.localization import DEFAULT, localize
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.prompts import Prompt
from findnemo.runs.store import Caption, Run
from findnemo.verification import Judges, quality, verify

if TYPE_CHECKING:
    from PIL import Image

STAGES = ("detect", "localize", "verify")


@dataclass(frozen=True)
class Plan:
    """What an audit does besides the calibration's settings. `quality_prompts`: unrelated captions for the quality check."""

    search: str = DEFAULT
    screen: Screen | None = None
    images: int = 4
    image_settings: ImageSettings = field(default_factory=ImageSettings)
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
            "image_settings": self.image_settings.to_json(),
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


def start(out: str | Path, model: Model, calibration: Calibration, plan: Plan) -> Run:
    """Open the run directory for writing and put the calibration into it."""
    calibration.check(model)
    run = Run.create(out, plan.settings(model, calibration))
    if not (run.path / "calibration" / "calibration.json").exists():
        calibration.save(run.path / "calibration")
    run.set_meta("source", model.source)  # where the model was found last; no result depends on it
    run.set_meta("versions", _versions())
    return run


def audit(
    work: Work, prompts: Iterable[Prompt], stages: Sequence[str] = STAGES, progress: Progress | None = None
) -> list[Caption]:
    """Run the stages over the captions and return them with their results. What is already answered is not done again.

    A caption on which a stage fails (NaN from the model, say) is marked failed with the reason, and the rest goes on.
    """
    ids = work.run.add(prompts)
    for stage in stages:
        answered = work.run.done(stage)
        todo = [c for c in work.run.captions(ids) if c.id not in answered and _concerns(stage, c)]
        for k, caption in enumerate(todo):
            if progress is not None:
                progress(stage, k, len(todo))
            _answer(work, stage, caption)
        if progress is not None:
            progress(stage, len(todo), len(todo))
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


def _answer(work: Work, stage: str, caption: Caption) -> None:
    began = time.monotonic()
    try:
        payload, error = _STEPS[stage](work, caption), None
    except FindnemoError as problem:
        payload, error = {}, str(problem)
    work.run.record(caption.id, stage, payload, time.monotonic() - began, error)


def _detect(work: Work, caption: Caption) -> dict[str, Any]:
    return detect(work.model, caption.text, work.calibration, work.plan.screen).to_json()


def _localize(work: Work, caption: Caption) -> dict[str, Any]:
    return localize(work.model, caption.text, work.calibration, work.plan.search).to_json()


def _verify(work: Work, caption: Caption) -> dict[str, Any]:
    neurons, plan, original = neurons_of(caption), work.plan, work.original(caption)
    result = verify(
        work.model,
        caption.text,
        neurons,
        work.calibration.settings,
        plan.images,
        plan.image_settings,
        work.judges,
        original,
    )
    if result.before:
        for name, images in (("before", result.before), ("after", result.after)):
            for k, image in enumerate(images):
                save_png(image, work.run.path / "images" / caption.slug / f"{name}-{k:02d}.png")
        rows = [("before", result.before), (f"after: {len(neurons)} neuron{'s' * (len(neurons) != 1)} off", result.after)]
        save_png(sheet(caption.text, rows, original), work.run.path / "sheets" / f"{caption.slug}.png")
    return result.values


_STEPS: dict[str, Callable[[Work, Caption], dict[str, Any]]] = {
    "detect": _detect,
    "localize": _localize,
    "verify": _verify,
}


def neurons_of(caption: Caption) -> NeuronSet:
    """The neurons found for a caption; empty if it was not localized."""
    return NeuronSet(caption.results.get("localize", {}).get("neurons", {}))


def all_neurons(captions: Iterable[Caption]) -> NeuronSet:
    """The neurons of all captions, those shared by several once."""
    return NeuronSet.of(n for c in captions for n in neurons_of(c))


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
