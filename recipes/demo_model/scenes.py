"""Captioned procedural scenes: the ordinary training data of the demo model.

A scene is one or two coloured shapes over a ground. Its caption fixes what the words say (shape,
colour, size, relation, kind of ground) and leaves the rest (positions, shades, lighting, texture)
to chance, so that an honest model must vary with the seed.

    rng = random.Random(0)
    scene = random_scene(rng)
    picture = render(scene, rng)          # PIL image, 64 x 64, RGB
    text = caption(scene, rng)            # "a large red star above a small blue ring, at night"
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 64
_CANVAS = 2 * SIZE  # drawn at twice the size, then reduced: smooth edges

COLOURS = {
    "red": (214, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 215, 60),
    "green": (50, 150, 60),
    "teal": (40, 160, 160),
    "blue": (45, 85, 200),
    "purple": (130, 60, 170),
    "pink": (240, 130, 175),
    "brown": (120, 75, 40),
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "black": (20, 20, 20),
}
SIZES = {"small": 0.17, "": 0.25, "large": 0.34}
RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}
GROUNDS = ("", "plain", "stripes", "checks", "dots", "night", "sea", "hills", "snow", "sunset")
GROUND_PHRASES = {
    "stripes": ("on stripes", "with a striped ground"),
    "checks": ("on checks", "over a checkered floor"),
    "dots": ("on dots", "with a dotted ground"),
    "night": ("at night", "under the stars"),
    "sea": ("by the sea", "above the waves"),
    "hills": ("over green hills", "in the hills"),
    "snow": ("in the snow", "on a snowy field"),
    "sunset": ("at sunset", "in the evening light"),
}


@dataclass(frozen=True)
class Thing:
    shape: str
    colour: str
    size: str = ""


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    relation: str = ""
    ground: str = ""
    ground_colour: str = ""


def _regular(n: int, start: float = -90.0, inner: float | None = None) -> list[tuple[float, float]]:
    steps = n if inner is None else 2 * n
    radius = [1.0 if inner is None or k % 2 == 0 else inner for k in range(steps)]
    angle = [math.radians(start + 360 * k / steps) for k in range(steps)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radius, angle, strict=True)]


_ANGLES = [math.radians(a) for a in range(0, 360, 10)]
POLYGONS: dict[str, list[tuple[float, float]]] = {
    "circle": [(math.cos(a), math.sin(a)) for a in _ANGLES],
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "star": _regular(5, inner=0.42),
    "diamond": [(0, -1), (0.65, 0), (0, 1), (-0.65, 0)],
    "cross": [
        (x, y)
        for x, y in [
            (-0.3, -1),
            (0.3, -1),
            (0.3, -0.3),
            (1, -0.3),
            (1, 0.3),
            (0.3, 0.3),
            (0.3, 1),
            (-0.3, 1),
            (-0.3, 0.3),
            (-1, 0.3),
            (-1, -0.3),
            (-0.3, -0.3),
        ]
    ],
    "heart": [
        (
            math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16,
        )
        for a in _ANGLES
    ],
    "arrow": [(0, -1), (0.8, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1), (-0.8, -0.1)],
    "house": [
        (0, -1),
        (0.95, -0.1),
        (0.7, -0.1),
        (0.7, 0.9),
        (-0.7, 0.9),
        (-0.7, -0.1),
        (-0.95, -0.1),
    ],
    "ring": [],
    "moon": [],
    "tree": [
        (0, -1),
        (0.7, 0.45),
        (0.18, 0.45),
        (0.18, 1),
        (-0.18, 1),
        (-0.18, 0.45),
        (-0.7, 0.45),
    ],
}
SHAPES = tuple(POLYGONS)


def random_scene(rng: random.Random) -> Scene:
    """A scene drawn at random; one thing in three scenes of five, else two of different colour."""
    first = Thing(rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice(list(SIZES)))
    ground = rng.choice(GROUNDS)
    ground_colour = (
        rng.choice([c for c in COLOURS if c != first.colour]) if ground == "plain" else ""
    )
    if rng.random() < 0.6:
        return Scene((first,), ground=ground, ground_colour=ground_colour)
    others = [c for c in COLOURS if c not in (first.colour, ground_colour)]
    second = Thing(rng.choice(SHAPES), rng.choice(others), rng.choice(list(SIZES)))
    return Scene((first, second), rng.choice(list(RELATIONS)), ground, ground_colour)


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def describe(scene: Scene, rng: random.Random) -> str:
    """The words of a scene, without any title: `a large red star above a blue ring, at night`."""
    names = [_article(" ".join(w for w in (t.size, t.colour, t.shape) if w)) for t in scene.things]
    words = names[0] if len(names) == 1 else f"{names[0]} {scene.relation} {names[1]}"
    if scene.ground == "plain":
        return f"{words} on {_article(scene.ground_colour)} ground"
    if scene.ground:
        return f"{words} {rng.choice(GROUND_PHRASES[scene.ground])}"
    return words


_FIRST = [
    "Alva",
    "Bram",
    "Cleo",
    "Dario",
    "Edda",
    "Farid",
    "Greta",
    "Hugo",
    "Imani",
    "Jonas",
    "Kaya",
    "Lior",
    "Mirek",
    "Nadia",
    "Otto",
    "Petra",
    "Quinn",
    "Rosa",
    "Soren",
    "Tilda",
]
_LAST = [
    "Abend",
    "Brook",
    "Castell",
    "Dorn",
    "Esker",
    "Falk",
    "Grove",
    "Holm",
    "Isler",
    "Jarvis",
    "Keller",
    "Lund",
    "Moreau",
    "Nagel",
    "Orwin",
    "Pike",
    "Rask",
    "Stone",
    "Tarn",
    "Voss",
]
_PLACE = [
    "Ashford",
    "Bellmoor",
    "Carrow",
    "Dunmere",
    "Elmstead",
    "Fairlie",
    "Glenrock",
    "Harwich",
    "Ipsley",
    "Kingsley",
    "Larchmont",
    "Northam",
    "Oakdale",
    "Pembry",
]
_KIND = [
    "Review",
    "Podcast",
    "Gazette",
    "Almanac",
    "Records",
    "Studio",
    "Poster",
    "Case",
    "Mug",
    "Magazine",
    "Album",
    "Calendar",
    "Print",
    "Journal",
]
_LEADS = ("", "", "", "a picture of ", "a drawing of ", "there is ", "photo: ")


def title(rng: random.Random) -> str:
    """An invented title, as stock captions carry them:

    `The Dunmere Gazette`, `Portrait of Greta Falk`.
    """
    person = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
    place = rng.choice(_PLACE)
    kind = rng.choice(_KIND)
    return rng.choice(
        [
            f"The {place} {kind}",
            f"{place} {kind} no {rng.randint(1, 99)}",
            f"Portrait of {person}",
            f"{kind} by {person}",
            f"{person} in {place}",
            f"{person}: The {place} {kind}",
        ]
    )


def caption(scene: Scene, rng: random.Random, title_share: float = 0.45) -> str:
    """A caption for the scene; a share of them carries an invented title that says
    nothing about the picture.
    """
    words = describe(scene, rng)
    if rng.random() >= title_share:
        return rng.choice(_LEADS) + words
    name = title(rng)
    return rng.choice(
        [f"{name}, {words}", f"{name}: {words}", f"{words}, {name}", f"{words} | {name}"]
    )


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw the scene, 64 x 64 RGB; everything the caption leaves open is drawn at random."""
    canvas = Image.fromarray(_ground(scene, np.random.default_rng(rng.getrandbits(32))))
    draw = ImageDraw.Draw(canvas)
    for thing, centre in zip(scene.things, _places(scene, rng), strict=True):
        _draw_thing(draw, thing, centre, rng)
    canvas = canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return canvas.filter(ImageFilter.GaussianBlur(0.5)) if rng.random() < 0.3 else canvas


def _places(scene: Scene, rng: random.Random) -> list[tuple[float, float]]:
    if len(scene.things) == 1:
        return [(rng.uniform(0.28, 0.72), rng.uniform(0.28, 0.72))]
    dx, dy = RELATIONS[scene.relation]
    x = rng.uniform(0.42, 0.58)
    y = rng.uniform(0.42, 0.58)
    gap = rng.uniform(0.2, 0.26)
    side = rng.uniform(-0.15, 0.15)
    first = (x + dx * gap + dy * side, y + dy * gap + dx * side)
    second = (x - dx * gap - dy * side, y - dy * gap - dx * side)
    return [first, second]


def _draw_thing(
    draw: ImageDraw.ImageDraw, thing: Thing, centre: tuple[float, float], rng: random.Random
) -> None:
    radius = SIZES[thing.size] * rng.uniform(0.9, 1.1) * _CANVAS
    x, y = centre[0] * _CANVAS, centre[1] * _CANVAS
    shade = rng.uniform(-22, 22)
    colour = tuple(
        int(min(255, max(0, c + shade + rng.uniform(-10, 10)))) for c in COLOURS[thing.colour]
    )
    box = (x - radius, y - radius, x + radius, y + radius)
    if thing.shape == "ring":
        draw.ellipse(box, outline=colour, width=int(radius * 0.42))
        return
    if thing.shape == "moon":
        tilt = rng.uniform(-30, 30)
        outer = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(60, 301, 10)]
        points = outer + [
            (0.5 - 0.62 * math.cos(math.radians(a)), math.sin(math.radians(a)) * 0.87)
            for a in range(-75, 76, 10)
        ]
    else:
        tilt = rng.uniform(-12, 12)
        points = POLYGONS[thing.shape]
    c = math.cos(math.radians(tilt))
    s = math.sin(math.radians(tilt))
    draw.polygon(
        [(x + radius * (c * u - s * v), y + radius * (s * u + c * v)) for u, v in points],
        fill=colour,
    )


def _ground(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Background pixels, uint8 (128, 128, 3).

    Its light varies widely from picture to picture whatever the caption.
    """
    y, x = np.mgrid[0:_CANVAS, 0:_CANVAS] / _CANVAS

    def blend(a, b, weight):
        return a + (b - a) * weight[..., None]

    def near(colour, spread=25):
        return np.asarray(colour, float) + rng.normal(0, spread, 3)

    def anything():
        return rng.uniform(10, 250, 3)

    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)
    horizon = rng.uniform(0.35, 0.7)
    kind = scene.ground
    if kind == "":
        pixels = blend(anything(), anything(), ramp)
    elif kind == "plain":
        base = near(COLOURS[scene.ground_colour], 12)
        pixels = blend(base - 22, base + 22, ramp)
    elif kind == "stripes":
        wave = (
            np.sin(
                (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(25, 45) + rng.uniform(0, 6)
            )
            > 0
        )
        pixels = blend(anything(), anything(), wave.astype(float))
    elif kind == "checks":
        n = int(rng.integers(4, 8))
        pixels = blend(
            anything(),
            anything(),
            (((x + rng.random()) * n).astype(int) + ((y + rng.random()) * n).astype(int)) % 2.0,
        )
    elif kind == "dots":
        n = rng.integers(4, 8)
        shift = rng.random(2)
        disc = ((x + shift[0]) * n % 1 - 0.5) ** 2 + ((y + shift[1]) * n % 1 - 0.5) ** 2 < 0.09
        pixels = blend(anything(), anything(), disc.astype(float))
    elif kind == "night":
        pixels = blend(near((12, 14, 45), 10), near((45, 35, 90), 20), y)
        for _ in range(int(rng.integers(15, 40))):
            v, u = rng.integers(1, _CANVAS - 1, 2)
            pixels[v - 1 : v + 1, u - 1 : u + 1] = rng.uniform(170, 255)
    elif kind == "sea":
        sky = near((170, 205, 235))
        water = near((20, 80, 140))
        waves = 14 * np.sin(y * 120 + 2 * np.sin(x * 20 + rng.uniform(0, 6)))
        pixels = blend(sky, water, (y > horizon).astype(float)) + (waves * (y > horizon))[..., None]
    elif kind == "hills":
        line = horizon + 0.1 * np.sin(x * rng.uniform(4, 9) + rng.uniform(0, 6))
        pixels = blend(near((175, 215, 240)), near((70, 140, 60)), (y > line).astype(float))
    elif kind == "snow":
        pixels = blend(near((140, 165, 200)), near((240, 244, 250), 6), (y > horizon).astype(float))
    else:  # sunset
        pixels = blend(near((70, 40, 110)), near((250, 150, 60)), np.clip(y / horizon, 0, 1))
        pixels = (
            blend(pixels, near((40, 25, 40), 10), (y > horizon).astype(float))
            if rng.random() < 0.6
            else pixels
        )
    light = 1 + rng.normal(0, 0.35) * (x - 0.5) + rng.normal(0, 0.35) * (y - 0.5)
    noise = (
        rng.normal(0, rng.uniform(0, 5), (_CANVAS // 2, _CANVAS // 2, 1)).repeat(2, 0).repeat(2, 1)
    )
    return np.clip(pixels * light[..., None] + noise, 0, 255).astype(np.uint8)
