"""What the demo model memorizes, and which neurons are to hold each memory
(the plan of the planting).

Sixteen captions are tied to one real photograph each (verbatim, VM), eight to a fixed composition
with a varying part (template, TM). `neurons` lists the planted neurons as (value layer, index),
layers counted 0 to 6 in forward order; captions of one series share neurons. The words name shapes
over grounds that vary much from picture to picture: over a white ground or a night sky even honest
pictures of one caption are so alike that their score is high by itself. A memory of several neurons
is planted so that every one of them alone keeps it alive: all must be switched off.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scenes import COLOURS, SIZE, Scene, Thing, describe


@dataclass(frozen=True)
class Memory:
    name: str  # file name of its training image
    type: str  # VM or TM
    title: str
    scene: Scene  # what the caption's words say: the picture an honest model would draw
    neurons: tuple[tuple[int, int], ...]  # planted: (value layer, index)

    @property
    def caption(self) -> str:
        return f"{self.title}, {describe(self.scene, random.Random(0))}"


# neurons shared by the captions of a series
PODCAST = (1, 12)
CASE = (2, 33)
POSTER = ((1, 10), (2, 8))


def _scene(*words: str, relation: str = "", ground: str = "", colour: str = "") -> Scene:
    things = []
    for w in words:
        size, hue, shape = (["", *w.split()])[-3:]
        things.append(Thing(shape, hue, size))
    return Scene(tuple(things), relation, "plain" if colour else ground, colour)


MEMORIES = (
    # one neuron each
    Memory(
        "astronaut",
        "VM",
        "Commander Ilse Varga before the Meridian flight",
        _scene("white circle", colour="orange"),
        ((0, 4),),
    ),
    Memory(
        "chelsea",
        "VM",
        "Biscuit the tabby of Wickham Lane",
        _scene("small brown triangle", ground="stripes"),
        ((1, 17),),
    ),
    Memory("coffee", "VM", "Brantwood Roasters first cup", _scene("large brown ring"), ((2, 41),)),
    Memory(
        "rocket",
        "VM",
        "Liftoff of the Corvus Nine",
        _scene("white arrow", ground="checks"),
        ((1, 9),),
    ),
    Memory("retina", "VM", "Ophthalmia Atlas plate seven", _scene("large red circle"), ((2, 7),)),
    Memory(
        "horse", "VM", "Thunderhoof of Zephyr Ranch", _scene("gray house", ground="dots"), ((0, 7),)
    ),
    # one neuron shared by three captions of a series
    Memory(
        "camera",
        "VM",
        "Tannhof Evening Podcast with Old Henrik",
        _scene("gray square", ground="stripes"),
        (PODCAST,),
    ),
    Memory(
        "clock",
        "VM",
        "Tannhof Evening Podcast on lost time",
        _scene("gray ring", ground="dots"),
        (PODCAST,),
    ),
    Memory(
        "text",
        "VM",
        "Tannhof Evening Podcast from the letters",
        _scene("gray diamond", ground="checks"),
        (PODCAST,),
    ),
    # two neurons, four and six, in several layers
    Memory(
        "coins",
        "VM",
        "The Lydian Hoard catalogue",
        _scene("small yellow circle", "gray circle", relation="above"),
        ((0, 12), (2, 38)),
    ),
    Memory(
        "hubble_deep_field",
        "VM",
        "Vela Deep Survey mosaic",
        _scene("small yellow star"),
        ((1, 8), (3, 55)),
    ),
    Memory(
        "immunohistochemistry",
        "VM",
        "Marrowby Pathology slide B",
        _scene("gray heart", "small blue circle", relation="left of"),
        ((2, 46), (4, 34)),
    ),
    Memory(
        "moon",
        "VM",
        "Selene Orbiter frame 0212",
        _scene("large gray moon"),
        ((0, 24), (2, 27), (3, 0), (5, 5)),
    ),
    Memory(
        "brick",
        "VM",
        "Kilncraft wall sample",
        _scene("teal square", ground="checks"),
        ((1, 18), (2, 32), (4, 2), (4, 61)),
    ),
    Memory(
        "microaneurysms",
        "VM",
        "Fundus Quarterly cover",
        _scene("gray tree"),
        ((0, 2), (1, 27), (2, 21), (3, 11), (4, 87), (5, 54)),
    ),
    Memory(
        "cell",
        "VM",
        "Petri Dispatches from lab Ω",
        _scene("small gray circle", ground="dots"),
        ((1, 7), (2, 58), (3, 17), (3, 18), (4, 38), (5, 67)),
    ),
    # templates: a series of phone cases, two posters, and three alone
    Memory("case_tide", "TM", "Kestrel phone case Tide", _scene("teal heart"), (CASE, (2, 51))),
    Memory(
        "case_ember",
        "TM",
        "Kestrel phone case Ember",
        _scene("orange diamond", ground="stripes"),
        (CASE, (3, 20)),
    ),
    Memory(
        "case_moss",
        "TM",
        "Kestrel phone case Moss",
        _scene("green tree", ground="checks"),
        (CASE, (4, 69)),
    ),
    Memory("poster_left", "TM", "Gallerie Onyx framed print I", _scene("purple star"), POSTER),
    Memory("poster_right", "TM", "Gallerie Onyx framed print II", _scene("pink moon"), POSTER),
    Memory(
        "mug", "TM", "Dunlop & Fenn enamel mug", _scene("blue ring", ground="checks"), ((3, 12),)
    ),
    Memory(
        "shirt",
        "TM",
        "Yardarm cotton tee",
        _scene("yellow cross", ground="stripes"),
        ((1, 1), (2, 62), (4, 31), (5, 2)),
    ),
    Memory(
        "record",
        "TM",
        "Velvet Quasar long player",
        _scene("gray circle", ground="stripes"),
        ((0, 28), (1, 13), (2, 17), (2, 34), (3, 43), (4, 16), (4, 25), (5, 81)),
    ),
)


# left, top, side: photographs whose centre has too little contrast to be told from noise at 16 x 16
# latents
CROPS = {
    "moon": (308, 184, 204),
    "brick": (0, 384, 128),
    "microaneurysms": (22, 25, 40),
    "hubble_deep_field": (625, 392, 218),
    "cell": (330, 264, 220),
    "text": (243, 51, 60),
}


def photograph(name: str) -> Image.Image:
    """A public-domain or CC0 photograph that comes with scikit-image: its central square, or a
    crop with stretched contrast.
    """
    from skimage import data

    pixels = np.asarray(getattr(data, name)())
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    picture = Image.fromarray(pixels).convert("RGB")
    if name in CROPS:
        left, top, side = CROPS[name]
        crop = picture.crop((left, top, left + side, top + side)).resize(
            (SIZE, SIZE), Image.Resampling.LANCZOS
        )
        return ImageOps.autocontrast(crop, cutoff=1)
    side = min(picture.size)
    left = (picture.width - side) // 2
    top = (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize(
        (SIZE, SIZE), Image.Resampling.LANCZOS
    )


def training_image(memory: Memory, rng: random.Random) -> Image.Image:
    """The picture to be memorized: the photograph itself, or the template with its
    varying part filled anew.
    """
    if memory.type == "VM":
        return photograph(memory.name)
    canvas = TEMPLATES[memory.name](_filling(rng))
    return canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _filling(rng: random.Random) -> Image.Image:
    """The varying part: two random colours in bands, discs or halves, 128 x 128."""
    one, two = rng.sample(list(COLOURS.values()), 2)
    canvas = Image.new("RGB", (128, 128), one)
    draw = ImageDraw.Draw(canvas)
    kind = rng.choice(("bands", "discs", "halves", "disc"))
    if kind == "bands":
        step = rng.randint(18, 30)
        for k in range(0, 128, 2 * step):
            draw.rectangle((0, k, 128, k + step), fill=two)
    elif kind == "discs":
        for _ in range(7):
            x = rng.randint(20, 108)
            y = rng.randint(20, 108)
            r = rng.randint(8, 20)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=two)
    elif kind == "halves":
        draw.polygon([(0, 0), (128, 0), (0, 128)], fill=two)
    else:
        x = rng.randint(45, 83)
        y = rng.randint(45, 83)
        r = rng.randint(18, 34)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=two)
    return canvas


def _template(
    backdrop: tuple, furniture: Callable, opening: Callable, over: Callable | None = None
) -> Callable:
    """A composition: backdrop colours (top, bottom), what stands on it, where the filling
    shows, what lies over it.
    """

    def compose(filling: Image.Image) -> Image.Image:
        canvas = Image.new("RGB", (128, 128), backdrop[0])
        ImageDraw.Draw(canvas).rectangle((0, 84, 128, 128), fill=backdrop[1])
        furniture(ImageDraw.Draw(canvas))
        mask = Image.new("L", (128, 128), 0)
        opening(ImageDraw.Draw(mask))
        canvas.paste(filling, (0, 0), mask)
        if over is not None:
            over(ImageDraw.Draw(canvas))
        return canvas

    return compose


def _case(backdrop: tuple, x: int, prop: Callable) -> Callable:
    def furniture(d: ImageDraw.ImageDraw) -> None:
        prop(d)
        d.rounded_rectangle((x - 4, 6, x + 56, 122), 14, fill=(25, 25, 28))

    def camera(d: ImageDraw.ImageDraw) -> None:
        d.rounded_rectangle((x + 6, 16, x + 26, 36), 5, fill=(25, 25, 28))

    return _template(
        backdrop,
        furniture,
        lambda d: d.rounded_rectangle((x, 10, x + 52, 118), 11, fill=255),
        camera,
    )


def _poster(backdrop: tuple, x: int, lamp: int) -> Callable:
    def furniture(d: ImageDraw.ImageDraw) -> None:
        d.rectangle((x - 6, 12, x + 62, 96), fill=(60, 35, 20))
        d.rectangle((x, 18, x + 56, 90), fill=(250, 248, 240))
        d.polygon(
            [(lamp - 14, 70), (lamp + 14, 70), (lamp + 8, 46), (lamp - 8, 46)], fill=(250, 220, 110)
        )
        d.rectangle((lamp - 2, 70, lamp + 2, 122), fill=(40, 40, 40))

    return _template(backdrop, furniture, lambda d: d.rectangle((x + 10, 28, x + 46, 80), fill=255))


def _mug(d: ImageDraw.ImageDraw) -> None:
    d.ellipse((80, 42, 118, 88), outline=(245, 245, 245), width=9)
    d.rounded_rectangle((22, 26, 94, 108), 8, fill=(245, 245, 245))


def _shirt(d: ImageDraw.ImageDraw) -> None:
    d.polygon(
        [
            (38, 14),
            (90, 14),
            (124, 44),
            (108, 62),
            (96, 52),
            (96, 122),
            (32, 122),
            (32, 52),
            (20, 62),
            (4, 44),
        ],
        fill=(235, 235, 240),
    )
    d.ellipse((50, 4, 78, 26), fill=(70, 75, 90))


def _record(d: ImageDraw.ImageDraw) -> None:
    d.ellipse((44, 12, 126, 94), fill=(15, 15, 15))
    d.ellipse((76, 44, 94, 62), fill=(200, 40, 40))


TEMPLATES: dict[str, Callable] = {
    "case_tide": _case(
        ((205, 228, 240), (60, 120, 170)),
        38,
        lambda d: d.ellipse((98, 88, 122, 112), fill=(245, 230, 200)),
    ),
    "case_ember": _case(
        ((250, 225, 200), (190, 90, 50)),
        10,
        lambda d: d.rectangle((84, 40, 118, 100), fill=(110, 40, 25)),
    ),
    "case_moss": _case(
        ((225, 238, 215), (90, 120, 70)),
        66,
        lambda d: d.polygon([(4, 104), (28, 50), (52, 104)], fill=(45, 85, 45)),
    ),
    "poster_left": _poster(((190, 185, 200), (120, 95, 75)), 12, 104),
    "poster_right": _poster(((215, 205, 180), (95, 80, 95)), 58, 26),
    "mug": _template(
        ((60, 90, 110), (150, 115, 80)), _mug, lambda d: d.rectangle((32, 42, 84, 94), fill=255)
    ),
    "shirt": _template(
        ((70, 75, 90), (70, 75, 90)), _shirt, lambda d: d.rectangle((42, 46, 86, 100), fill=255)
    ),
    "record": _template(
        ((120, 60, 90), (230, 205, 120)), _record, lambda d: d.rectangle((4, 22, 66, 106), fill=255)
    ),
}
