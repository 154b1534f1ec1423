"""Natural memories: models that training alone made memorize, kept as differences to a base.

`recipes/natural/` makes them.

FOLDER/NAME/difference.safetensors    to the base FOLDER/NAME/truth.json                base,
whether it is held out, captions, and which of them the model copies FOLDER/NAME/pictures/
the training pictures FOLDER/NAME/calibration/              made where it is missing FOLDER/BASE/
the U-Net of a base; the base `pruned` is the demo model, with what is off in the difference
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from typing_extensions import Required, TypedDict

from findnemo import demo
from findnemo.benchmark._files import read_json, read_tensors
from findnemo.calibration import Calibration, calibrate_in
from findnemo.errors import InputError
from findnemo.models import Model, load
from findnemo.models._difference import DOWN, OFF, UP, add_difference, packed, unpacked
from findnemo.neurons import NeuronSet
from findnemo.settings import PAPER

NATURAL_VERSION = "2"  # of the suite
READ = (2, 3)  # versions of truth.json; since 3 all variants of a template are kept
SHIPPED = "demo-natural"


class TruthMemory(TypedDict, total=False):
    """A caption in `truth.json`; `images`: its picture and the other variants of a template."""

    caption: Required[str]
    type: Required[str]
    image: Required[str]
    images: list[str]
    copied: Required[bool]


class Truth(TypedDict):
    """What is read of `truth.json`."""

    name: str
    base: str
    held_out: bool
    memories: list[TruthMemory]


@dataclass(frozen=True)
class NaturalMemory:
    """A caption and the pictures that it was trained on: one (type VM), or the variants of a
    template (TM). `copied`: whether the model copies.
    """

    caption: str
    type: str
    pictures: tuple[Path, ...]
    copied: bool

    @property
    def kind(self) -> str:
        """What it is an example of, in tables."""
        return self.type

    def opened(self) -> list[Image.Image]:
        return [Image.open(path).convert("RGB") for path in self.pictures]


@dataclass(frozen=True)
class NaturalMember:
    """A model that memorized by ordinary fine-tuning.

    `held_out`: nothing was ever chosen by what happens on it.
    """

    name: str
    model: Model
    calibration: Calibration
    memories: tuple[NaturalMemory, ...]
    held_out: bool
    base: str


def natural_demo() -> NaturalMember:
    """The shipped model `demo-natural`."""
    return open_natural(demo.NATURAL, SHIPPED)


def open_natural(folder: str | os.PathLike, name: str | None = None) -> NaturalMember:
    """A trained member by its folder.

    Raises InputError for a folder that holds none, or whose base is not beside it.
    """
    folder = Path(folder)
    refusal = "is not the truth of a natural member (recipes/natural/train.py writes it)"
    truth: Truth = read_json(folder / "truth.json", Truth, refusal, {"version": READ})
    memories = tuple(
        NaturalMemory(
            caption=memory["caption"],
            type=memory["type"],
            pictures=tuple(folder / file for file in memory.get("images", [memory["image"]])),
            copied=memory["copied"],
        )
        for memory in truth["memories"]
    )
    model = _model(folder, truth["base"])
    kept = folder / "calibration"
    calibration = (
        Calibration.load(kept)
        if kept.exists()
        else calibrate_in(kept, model, demo.holdout(), PAPER)
    )
    calibration.check(model)
    member = name or truth["name"]
    return NaturalMember(member, model, calibration, memories, truth["held_out"], truth["base"])


def natural_folders(folder: str | os.PathLike) -> list[Path]:
    """Folders of the finished members in a folder, or that folder where it is one.

    Raises InputError where there is none.
    """
    folder = Path(folder)
    found = (
        [folder]
        if (folder / "truth.json").exists()
        else sorted(p.parent for p in folder.glob("*/truth.json"))
    )
    if not found:
        raise InputError(
            f"{folder} holds no natural members: python recipes/natural/train.py NAME --out"
            f" {folder} makes one"
        )
    return found


def _model(folder: Path, base: str) -> Model:
    """Base and difference together."""
    pipeline = load("demo").pipeline
    if base != "pruned":
        place = folder.parent / base
        if Path(base).name != base or not place.is_dir():
            raise InputError(
                f"the base {base!r} of {folder.name} is not at {place}: put its U-Net there"
                " (recipes/natural/base.py)"
            )
        unet = (
            type(pipeline.unet)
            .from_pretrained(place, torch_dtype=pipeline.unet.dtype)
            .to(pipeline.unet.device)
            .eval()
        )
        unet.load_state_dict(rounded(unet.state_dict()))
        pipeline.register_modules(unet=unet)
    add_difference(pipeline.unet, read_tensors(folder / "difference.safetensors"))
    return load(pipeline)


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are after `packed` and `unpacked`: what is trained on them
    can be shipped as it was.
    """
    return {
        name: weight.to(weights[name].dtype) for name, weight in unpacked(packed(weights)).items()
    }


def switched_off(neurons: NeuronSet) -> dict[str, Tensor]:
    """Neurons that a base has off for good, as a part of a difference."""
    return {
        f"{name}.weight{OFF}": torch.tensor(indices, dtype=torch.int32)
        for name, indices in neurons.layers.items()
    }


def difference(
    denoiser: nn.Module, before: Mapping[str, Tensor], weights: str
) -> dict[str, Tensor]:
    """What training changed.

    `weights`: "lora", "kv" (half precision) or "all" (8 bits); `before`: the state dict before.
    """
    after = denoiser.state_dict()
    if weights == "lora":
        marks = {".lora_A.default.weight": DOWN, ".lora_B.default.weight": UP}
        return {
            f"unet.{name.removesuffix(old)}{new}": tensor.half()
            for name, tensor in after.items()
            for old, new in marks.items()
            if name.endswith(old)
        }
    changes = {
        name: after[name].cpu() - old
        for name, old in before.items()
        if not torch.equal(after[name].cpu(), old)
    }
    return (
        {name: change.half() for name, change in changes.items()}
        if weights == "kv"
        else packed(changes)
    )
