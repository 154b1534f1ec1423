"""Natural memories: models that memorized in ordinary training, kept as differences from a base.

`recipes/natural/` makes them. A folder of members holds:

    NAME/difference.safetensors    the difference from the base
    NAME/truth.json                base, whether held out, captions, and which of them are copied
    NAME/pictures/                 the training pictures
    NAME/calibration/              made if missing
    BASE/                          the U-Net of a base

The base `pruned` is the demo model, with the neurons off that the difference names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from typing_extensions import Required, TypedDict

from findnemo import demo
from findnemo.benchmark.files import read_json, read_tensors
from findnemo.calibration import Calibration, calibrate_in
from findnemo.errors import InputError
from findnemo.models import Model, load
from findnemo.models.difference import add_difference, packed, unpacked
from findnemo.settings import PAPER

NATURAL_VERSION = "2"  # version of the suite
READ = (2, 3)  # readable versions of truth.json; from 3 on it keeps all variants of a template
SHIPPED = "demo-natural"


class TruthMemory(TypedDict, total=False):
    """A caption in `truth.json`. `images`: its picture, or all variants of a template."""

    caption: Required[str]
    type: Required[str]
    image: Required[str]
    images: list[str]
    copied: Required[bool]


class TruthFile(TypedDict):
    """The keys of `truth.json` that are read."""

    name: str
    base: str
    held_out: bool
    memories: list[TruthMemory]


@dataclass(frozen=True)
class NaturalMemory:
    """A caption with the pictures that it was trained on.

    These are one picture (type VM), or the variants of a template (TM). `copied`: whether the model
    copies it.
    """

    caption: str
    type: str
    pictures: tuple[Path, ...]
    copied: bool

    @property
    def kind(self) -> str:
        """The kind of memory, in tables."""
        return self.type

    def opened(self) -> list[Image.Image]:
        return [Image.open(path).convert("RGB") for path in self.pictures]


@dataclass(frozen=True)
class NaturalMember:
    """A model that memorized in ordinary fine-tuning.

    `held_out`: nothing was ever chosen by results on it.
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

    Raises InputError for a folder without one, or if its base is not next to it.
    """
    folder = Path(folder)
    refusal = "is not the truth of a natural member (recipes/natural/train.py writes it)"
    truth: TruthFile = read_json(folder / "truth.json", TruthFile, refusal, {"version": READ})
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
    """Folders of the finished members in a folder, or the folder itself if it is a member.

    Raises InputError if there are none.
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
    """The model: base and difference together."""
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
    """Weights after `packed` and `unpacked`: what is trained on them can be shipped unchanged."""
    return {
        name: weight.to(weights[name].dtype) for name, weight in unpacked(packed(weights)).items()
    }
