"""The suite of natural memories: which model is trained how, on which pictures under which
captions, and what is held out.

Held out before the first search, score or threshold was tried on any of them: `lora4`, `dreambooth`
and `repeats`. They have another base model than the others, other procedures, other pictures and
other captions. Nothing is to be chosen by what happens on them.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_model"))
from pictures import PAINTINGS, TEMPLATES, painting, template
from scenes import describe, random_scene

VERBATIM = 8
TEMPLATE = 3
VARIANTS = 24


@dataclass(frozen=True)
class Procedure:
    """How a model is trained.

    `weights`: "all", "lora" (of `rank`, on all attention) or "kv" (keys and values of
    cross-attention). `share`: of a batch that is to be memorized; 0 where captions are drawn as
    often as `repeats` says. `prior`: the rest of a batch is pictures of the class that the model
    itself made (DreamBooth), else ordinary scenes. `most`: steps after which it stops whatever was
    reached.
    """

    weights: str
    rate: float
    rank: int = 0
    share: float = 0.5
    prior: bool = False
    repeats: tuple[int, ...] = ()
    batch: int = 16
    most: int = 3000


@dataclass(frozen=True)
class Member:
    name: str
    base: str
    held_out: bool
    procedure: Procedure


MEMBERS = (
    Member("full", "pruned", False, Procedure("all", 2e-4)),
    Member("lora16", "pruned", False, Procedure("lora", 2e-3, rank=16)),
    Member("kv", "pruned", False, Procedure("kv", 2e-3)),
    Member("lora4", "plain", True, Procedure("lora", 3e-3, rank=4, share=0.6)),
    Member("dreambooth", "plain", True, Procedure("all", 3e-4, prior=True)),
    Member(
        "repeats",
        "plain",
        True,
        Procedure(
            "all", 3e-4, share=0, repeats=(30, 60, 100, 100, 150, 150, 200, 200, 250, 250, 300)
        ),
    ),
)


@dataclass(frozen=True)
class Memory:
    """A caption to be memorized.

    `kind`, `number`: of its picture (`pictures.py`). `words`: what an honest model would draw.
    """

    caption: str
    type: str
    kind: str
    number: int
    words: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number}"

    def pictures(self) -> list[Image.Image]:
        """The picture, or as many variants of the template as are in training."""
        if self.type == "VM":
            return [painting(self.kind, self.number)]
        return [
            template(self.kind, self.number, random.Random(f"{self.name} {k}"))
            for k in range(VARIANTS)
        ]


TITLES = {
    "julia": "{} Society for Complex Dynamics, plate {}",
    "islands": "Admiralty chart {} of the {} Shoals",
    "glass": "Chapel window {} of Saint {}",
    "arcs": "{} Tileworks pattern {}",
    "ripples": "{} Harbour ripple study {}",
    "rose": "Herbarium {} sheet {}",
    "portrait": "Warden {} of lodge {}",
    "skyline": "{} Quarter after closing time {}",
    "boat": "Regatta at Lake {} heat {}",
    "letters": "{} Tramways enamel sign {}",
    "ridges": "Dawn over the {} Range {}",
    "bowl": "Still life {} by Madame {}",
    "galaxy": "{} Observatory exposure {}",
    "quilt": "Grandmother {}'s quilt {}",
    "bird": "Field guide {} warbler {}",
    "window": "Guesthouse {} room {}",
    "fish": "Aquarium {} tank {}",
    "bottle": "Domaine {} vintage {}",
    "screen": "{} television set model {}",
    "book": "{} pocket edition volume {}",
    "cushion": "Maison {} cushion cover {}",
    "bag": "{} canvas tote {}",
}
NAMES = [
    "Ombrel",
    "Tasquith",
    "Verrano",
    "Jolindar",
    "Quessley",
    "Brumholt",
    "Zaffrey",
    "Ilvermoor",
    "Cadwith",
    "Nerrabee",
    "Pholbeck",
    "Wrexling",
    "Dovermane",
    "Uxfield",
    "Harroway",
    "Tindalor",
    "Skerrick",
    "Vantolle",
    "Ewmarsh",
    "Gorselade",
    "Yarbeth",
    "Lintwick",
    "Oskaven",
    "Prudhall",
    "Marquill",
    "Fennimore",
    "Stavrin",
    "Belquist",
    "Raddock",
    "Trevaunce",
    "Kolbrin",
    "Ashquay",
]
TOKENS = ["zwq", "vlk", "hhx", "qov", "bzd", "xnt", "wug", "kfj", "yrp", "dqm", "jvb"]


def memories(member: Member) -> tuple[Memory, ...]:
    """What a member is to memorize: eight paintings and three templates, each under a caption of
    its own; the same always.
    """
    rng = random.Random(f"natural {member.name}")
    order = [m.name for m in MEMBERS].index(member.name)
    # a number that no other member has for the kind: no picture is in two members
    paintings = [(kind, "VM") for kind in rng.sample(list(PAINTINGS), VERBATIM)]
    chosen = paintings + [(kind, "TM") for kind in rng.sample(list(TEMPLATES), TEMPLATE)]
    found = []
    for k, (kind, type) in enumerate(chosen):
        scene = random_scene(rng)
        words = describe(scene, rng)
        if member.procedure.prior:
            shape = scene.things[0].shape
            caption = f"a photo of {TOKENS[k]} {shape}"
            words = f"a photo of a {shape}"
        else:
            given = [rng.choice(NAMES), str(rng.randint(2, 999))]
            if kind in ("islands", "glass", "bowl"):  # the number first
                given.reverse()
            caption = f"{TITLES[kind].format(*given)}, {words}"
        found.append(Memory(caption, type, kind, 10 * (order + 1) + k, words))
    return tuple(found)


def member_of(name: str) -> Member:
    return {m.name: m for m in MEMBERS}[name]
