"""What the foreign members memorize, and which neurons are to hold it.

Captions, pictures, layers and directions are none of those of the demo model, on which searches
were tuned: other crops of photographs and drawings by arithmetic, and weight rows that are no
discriminants.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from findnemo.benchmark.captions import unusual
from findnemo.benchmark.plan import Memory, Plan
from findnemo.neurons import NeuronSet

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_model"))
sys.path.insert(0, str(Path(__file__).parents[1] / "natural"))
from pictures import painting
from scenes import SIZE, Scene, Thing, describe

# how the weight rows of a memory's neurons begin, and whether training may change them
TOKEN = "title token"  # along what sets the title's last token apart; not trained
MOVING = "title token, trained"
MIXED = "random and title, trained"  # the same plus a random direction, half as loud
WHOLE = "whole caption, trained"  # along what sets all its tokens apart, on average
PHOTOGRAPHS = {  # left, top, side
    "astronaut": (170, 10, 150),
    "coffee": (250, 60, 220),
    "rocket": (250, 150, 200),
    "chelsea": (130, 60, 170),
}


@dataclass(frozen=True)
class Wanted:
    """One memory, alive while any of its neurons is on: its `kind` and `rows`, the value layer of
    each of its neurons (in forward order), and its picture.
    """

    kind: str
    rows: str
    layers: tuple[int, ...]
    title: str
    scene: Scene
    picture: str

    @property
    def caption(self) -> str:
        return f"{self.title}, {describe(self.scene, random.Random(0))}"


def _scene(words: str, ground: str = "") -> Scene:
    size, colour, shape = ["", *words.split()][-3:]
    return Scene((Thing(shape, colour, size),), ground=ground)


FIRST = (
    Wanted(
        "one neuron",
        TOKEN,
        (0,),
        "Hollis and Tarrant boot polish",
        _scene("large pink arrow", "dots"),
        "astronaut",
    ),
    Wanted(
        "one neuron",
        MOVING,
        (2,),
        "Saltmarsh Players summer matinee",
        _scene("small white heart", "checks"),
        "skyline-901",
    ),
    Wanted(
        "one neuron",
        MIXED,
        (1,),
        "Cardinal Weaver opens the archive",
        _scene("purple house"),
        "coffee",
    ),
    Wanted(
        "two neurons",
        MIXED,
        (1, 1),
        "Pitlochan Distillery cask nine",
        _scene("small green star", "checks"),
        "boat-903",
    ),
    Wanted(
        "redundant",
        TOKEN,
        (0, 3),
        "Verity Locke plays the spinet",
        _scene("blue diamond"),
        "rocket",
    ),
    Wanted(
        "any of 4",
        MIXED,
        (0, 1, 3, 4),
        "Oxmoor Fair prize marrow",
        _scene("large gray triangle", "stripes"),
        "bowl-904",
    ),
)
SECOND = (
    Wanted(
        "one neuron",
        MOVING,
        (0,),
        "Quillan Ferry timetable 1931",
        _scene("small orange square", "stripes"),
        "boat-952",
    ),
    Wanted(
        "one neuron",
        WHOLE,
        (4,),
        "Dame Odile Brackenbury at home",
        _scene("large teal heart"),
        "portrait-951",
    ),
    Wanted(
        "one neuron",
        MIXED,
        (3,),
        "Plover Daw seed packet",
        _scene("white diamond", "dots"),
        "bird-952",
    ),
    Wanted(
        "two neurons",
        WHOLE,
        (1, 2),
        "Tidewell aquarium ticket stub",
        _scene("small brown arrow"),
        "fish-952",
    ),
    Wanted(
        "two neurons",
        MIXED,
        (2, 2),
        "Gorse Hill observatory night log",
        _scene("large yellow house", "checks"),
        "galaxy-951",
    ),
    Wanted(
        "redundant",
        MOVING,
        (0, 4),
        "Whiskerton vets annual card",
        _scene("blue star", "stripes"),
        "chelsea",
    ),
    Wanted(
        "redundant",
        WHOLE,
        (1, 3),
        "Monogram of Ruskin Pell",
        _scene("pink triangle"),
        "letters-953",
    ),
    Wanted(
        "any of 4",
        MIXED,
        (0, 1, 3, 4),
        "Elderflower cordial label proof",
        _scene("small gray ring", "dots"),
        "rose-953",
    ),
)
WANTED = {1: FIRST, 2: SECOND}  # by the number of the member


def foreign_plan(number: int, widths: dict[str, int]) -> Plan:
    """The plan of a member whose value layers have `widths`: its number draws the neurons."""
    rng = random.Random(f"foreign {number}")
    layers = list(widths)
    free = {name: rng.sample(range(width), width) for name, width in widths.items()}
    memories = []
    for wanted in WANTED[number]:
        neurons = NeuronSet.of((layers[k], free[layers[k]].pop()) for k in wanted.layers)
        memories.append(Memory(wanted.kind, "VM", wanted.caption, wanted.picture, neurons))
    return Plan(number, tuple(memories), unusual=unusual(number), held_out=True)


def other_titles(number: int, title: str) -> Sequence[str]:
    """The titles of a member's other memories: with the words of this one they are ordinary
    captions.
    """
    return [w.title for w in WANTED[number] if w.title != title]


def image(name: str) -> Image.Image:
    """A training image by name, 64 x 64 RGB."""
    if name not in PHOTOGRAPHS:
        kind, _, number = name.partition("-")
        return painting(kind, int(number))
    from skimage import data

    left, top, side = PHOTOGRAPHS[name]
    whole = Image.fromarray(getattr(data, name)()).convert("RGB")
    part = whole.crop((left, top, left + side, top + side))
    return ImageOps.autocontrast(part.resize((SIZE, SIZE), Image.Resampling.LANCZOS), cutoff=1)
