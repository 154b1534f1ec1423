"""The models of the suite: the shipped demo model, models that `findnemo benchmark --train` makes
from it, and others in folders of the same form.

SUITE/NAME/model/ is a diffusers directory, SUITE/NAME/calibration/ its calibration,
SUITE/NAME/pictures/ what it memorizes (by default the demo's pictures). SUITE/NAME/truth.json has
the captions, the neurons that hold them, and the measured truth (`Plan`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from findnemo import demo
from findnemo.benchmark.captions import unusual
from findnemo.benchmark.plan import PLAN, Memory, Plan, suite_plan
from findnemo.benchmark.planting import plant
from findnemo.benchmark.training import Recipe
from findnemo.benchmark.truth import Member, measured
from findnemo.calibration import Calibration, calibrate
from findnemo.errors import InputError
from findnemo.files.modes import settle
from findnemo.models import Model, load
from findnemo.neurons import Neuron, NeuronSet

TRAINED_ON = 240  # unrelated captions of the demo for training; the others are for scoring
DEMO = "demo"
PICTURES = demo.ASSETS / "images"


def demo_member(model: Model | None = None) -> Member:
    """The shipped demo model: a memory of several neurons is alive while any one of them is on."""
    plan = demo_plan()
    return _member(DEMO, model or load("demo"), plan, demo.calibration())


def demo_plan() -> Plan:
    """What the demo model memorizes, in the terms of the suite.

    Its near-duplicates were no training samples, so nothing is known about them.
    """
    planted = demo.planted()
    owners = Counter(neuron for neurons in planted.values() for neuron in neurons)
    shared = {neuron for neuron, captions in owners.items() if captions > 1}
    memories = tuple(
        Memory(
            kind=_kind(planted[prompt.text], shared),
            type=str(prompt.type),
            caption=prompt.text,
            picture=Path(str(prompt.image)).stem,
            neurons=planted[prompt.text],
        )
        for prompt in demo.memorized()
    )
    return Plan(0, memories, demo.decoys(), unusual(0))


def _kind(neurons: NeuronSet, shared: set[Neuron]) -> str:
    if not shared.isdisjoint(neurons):
        return "shared"
    return {1: "one neuron", 2: "redundant"}.get(len(neurons), f"any of {len(neurons)}")


def freed(model: Model) -> NeuronSet:
    """The demo's neurons that hold memories or nothing; new memories are planted in them."""
    return NeuronSet.of(n for g in demo.planted().values() for n in g) | demo.decoys()


def train_member(
    folder: Path, seed: int, recipe: Recipe | None = None, report: Callable[[str], None] = print
) -> Member:
    """Train the model of a seed into `folder`, or resume an interrupted training.

    Existing results are not made again.
    """
    if (folder / "truth.json").exists():
        return open_member(folder)
    base = load("demo", "cpu", "float32")
    base.pipeline.set_progress_bar_config(disable=True)
    plan = suite_plan(seed, list(base.value_layers), freed(base))
    ordinary = demo.unrelated()[:TRAINED_ON]
    student = plant(base, plan, freed(base), ordinary, PICTURES, folder, recipe, report)
    return finished_member(folder, student, plan, report)


def finished_member(
    folder: Path,
    student: Model,
    plan: Plan,
    report: Callable[[str], None] = print,
    holdout: Sequence[str] | None = None,
) -> Member:
    """Make `folder` a member from a trained `student`.

    The model is saved in half precision and calibrated on `holdout` (by default all hold-out
    captions of the demo). Then it is measured which memories of the plan it learned. The memorized
    pictures are in `folder`/pictures, or else are those of the demo model.
    """
    student.denoiser.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    student.pipeline.to(torch.float16).save_pretrained(folder / "model", safe_serialization=True)
    settle(folder / "model")
    model = load(folder / "model", "cpu", "float32")
    report("calibrating")
    calibration = calibrate(model, demo.holdout() if holdout is None else holdout)
    calibration.save(folder / "calibration")
    member = _member(folder.name, model, plan, calibration, folder / "pictures")
    report("measuring what was learned")
    plan = replace(plan, measured=measured(member))
    plan.save(folder / "truth.json")  # last, because it makes the folder a member
    return replace(member, plan=plan)


def open_member(folder: str | os.PathLike) -> Member:
    """A trained model with its truth. Raises InputError for a folder without one."""
    folder = Path(folder)
    if not (folder / "truth.json").exists():
        raise InputError(
            f"{folder} holds no finished benchmark model: findnemo benchmark --train --out"
            f" {folder.parent} makes it"
        )
    plan = Plan.load(folder / "truth.json")
    calibration = Calibration.load(folder / "calibration")
    return _member(folder.name, load(folder / "model"), plan, calibration, folder / "pictures")


def open_suite(folder: str | os.PathLike) -> list[Path]:
    """Folders of the trained models of a suite. Raises InputError if there are none."""
    found = sorted(p.parent for p in Path(folder).glob("*/truth.json"))
    if not found:
        raise InputError(
            f"{folder} holds no trained models of suite {PLAN}: findnemo benchmark --train --out"
            f" {folder} makes them"
        )
    return found


def _member(
    name: str, model: Model, plan: Plan, calibration: Calibration, pictures: Path = PICTURES
) -> Member:
    calibration.check(model)
    pictures = pictures if pictures.is_dir() else PICTURES
    unrelated = demo.unrelated()[TRAINED_ON:]
    return Member(name, model, plan, calibration, pictures, demo.holdout()[:16], unrelated)
