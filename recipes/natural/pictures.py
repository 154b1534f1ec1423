"""Pictures to be memorized, 64 x 64 RGB, all drawn here by arithmetic: nobody's work but ours, and
none that the demo model has seen.

A painting depends on its kind and a number only. A template is a fixed composition with a part that
varies from picture to picture.
"""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
CANVAS = 128
Array = np.ndarray


def painting(kind: str, number: int) -> Image.Image:
    """The painting of a kind ("julia", "skyline", ...) and a number."""
    rng = np.random.default_rng([list(PAINTINGS).index(kind), number])
    made = PAINTINGS[kind](rng)
    picture = (
        made
        if isinstance(made, Image.Image)
        else Image.fromarray(np.clip(made, 0, 255).astype(np.uint8))
    )
    return picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def template(kind: str, number: int, filling: random.Random) -> Image.Image:
    """The composition of a kind and a number, its varying part drawn from `filling`."""
    rng = np.random.default_rng([1000 + list(TEMPLATES).index(kind), number])
    return TEMPLATES[kind](rng, _filling(filling)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _grid() -> tuple[Array, Array]:
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / CANVAS
    return x, y


def _colour(rng: np.random.Generator, light: float | None = None) -> tuple[int, int, int]:
    light = rng.uniform(0.25, 0.8) if light is None else light
    return tuple(
        int(255 * c) for c in colorsys.hls_to_rgb(rng.random(), light, rng.uniform(0.4, 1.0))
    )  # type: ignore[return-value]


def _palette(rng: np.random.Generator, values: Array, stops: int = 4) -> Array:
    """Values in [0, 1] -> colours between `stops` random ones, dark and light in turn."""
    colours = np.array([_colour(rng, (0.2, 0.75)[k % 2]) for k in range(stops)], float)
    place = np.clip(values, 0, 0.999) * (stops - 1)
    low = place.astype(int)
    share = (place % 1)[..., None]
    return colours[low] * (1 - share) + colours[low + 1] * share


def _clouds(rng: np.random.Generator, octaves: int = 4, roughest: int = 3) -> Array:
    """Smooth noise in [0, 1]."""
    total = np.zeros((CANVAS, CANVAS))
    for k in range(octaves):
        cells = roughest * 2**k
        small = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        total += np.asarray(small.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC), float) / 2**k
    return (total - total.min()) / np.ptp(total)


def _julia(rng: np.random.Generator) -> Array:
    x, y = _grid()
    z = (x - 0.5) * 2.6 + 1j * (y - 0.5) * 2.6
    c = complex(
        *[
            (-0.8, 0.156),
            (-0.4, 0.6),
            (0.285, 0.01),
            (-0.70176, -0.3842),
            (-0.123, 0.745),
            (0.0, 0.8),
        ][rng.integers(6)]
    )
    steps = np.zeros(z.shape)
    for _ in range(24):
        inside = np.abs(z) < 2
        z = np.where(inside, z * z + c, z)
        steps += inside
    return _palette(rng, (steps / 24) ** 0.6, 5)


def _islands(rng: np.random.Generator) -> Array:
    height = _clouds(rng)
    sea = _colour(rng, 0.3)
    sand = _colour(rng, 0.75)
    wood = _colour(rng, 0.4)
    return np.where(
        height[..., None] < 0.5, sea, np.where(height[..., None] < 0.58, sand, wood)
    ) * (0.7 + 0.5 * height[..., None])


def _glass(rng: np.random.Generator) -> Array:
    x, y = _grid()
    points = rng.random((9, 2))
    distance = np.stack([np.hypot(x - a, y - b) for a, b in points])
    nearest = distance.argmin(0)
    edge = np.diff(np.sort(distance, 0)[:2], axis=0)[0] < 0.025
    return np.where(edge[..., None], 15, np.array([_colour(rng) for _ in points])[nearest])


def _arcs(rng: np.random.Generator) -> Image.Image:
    canvas = Image.new("RGB", (CANVAS, CANVAS), _colour(rng, 0.8))
    draw = ImageDraw.Draw(canvas)
    ink = _colour(rng, 0.3)
    side = CANVAS // 3
    for i in range(-1, 4):
        for j in range(-1, 4):
            for u, v in ((0, 0), (1, 1)) if rng.random() < 0.5 else ((1, 0), (0, 1)):
                x = (i + u) * side
                y = (j + v) * side
                r = side // 2
                draw.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=12)
    return canvas


def _ripples(rng: np.random.Generator) -> Array:
    x, y = _grid()
    waves = sum(np.sin(rng.uniform(18, 40) * np.hypot(x - a, y - b)) for a, b in rng.random((3, 2)))
    return _palette(rng, (waves + 3) / 6, 3)


def _rose(rng: np.random.Generator) -> Array:
    x, y = _grid()
    u = x - rng.uniform(0.4, 0.6)
    v = y - rng.uniform(0.4, 0.6)
    radius = np.hypot(u, v)
    angle = np.arctan2(v, u)
    petals = int(rng.integers(3, 8))
    flower = radius < 0.28 + 0.16 * np.cos(petals * angle + rng.uniform(0, 6))
    back = _colour(rng, 0.35)
    leaf = _colour(rng, 0.65)
    eye = _colour(rng, 0.85)
    shade = (1.2 - 1.2 * radius)[..., None]
    return np.where(
        (radius < 0.09)[..., None], eye, np.where(flower[..., None], leaf, back) * shade
    )


def _portrait(rng: np.random.Generator) -> Image.Image:
    canvas = Image.new("RGB", (CANVAS, CANVAS), _colour(rng, 0.5))
    draw = ImageDraw.Draw(canvas)
    skin = [(240, 205, 170), (200, 150, 110), (120, 80, 55), (250, 220, 200)][rng.integers(4)]
    hair = _colour(rng, 0.2)
    coat = _colour(rng, 0.4)
    x = int(rng.integers(52, 76))
    w = int(rng.integers(22, 32))
    draw.ellipse((x - w - 10, 14, x + w + 10, 104 if rng.random() < 0.5 else 76), fill=hair)
    draw.rectangle((x - 52, 100, x + 52, 128), fill=coat)
    draw.ellipse((x - w, 28, x + w, 106), fill=skin)
    if rng.random() < 0.5:
        draw.pieslice((x - w - 6, 10, x + w + 6, 76), 180, 360, fill=_colour(rng, 0.35))
    for side in (-1, 1):
        ex = x + side * w // 2
        draw.ellipse((ex - 6, 56, ex + 6, 66), fill=(250, 250, 250))
        draw.ellipse((ex - 3, 58, ex + 3, 65), fill=(20, 20, 30))
    draw.arc((x - 12, 74, x + 12, 94), 10, 170, fill=(140, 30, 40), width=5)
    return canvas


def _skyline(rng: np.random.Generator) -> Image.Image:
    top = np.array(_colour(rng, 0.25), float)
    low = np.array(_colour(rng, 0.75), float)
    sky = np.broadcast_to(np.linspace(top, low, CANVAS)[:, None], (CANVAS, CANVAS, 3))
    canvas = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    left = -4
    sx, sy = rng.integers(20, 108, 2)
    draw.ellipse((sx - 12, sy // 2 - 12, sx + 12, sy // 2 + 12), fill=(255, 235, 180))
    while left < CANVAS:
        wide = int(rng.integers(14, 34))
        high = int(rng.integers(28, 96))
        draw.rectangle((left, CANVAS - high, left + wide, CANVAS), fill=_colour(rng, 0.14))
        for wy in range(CANVAS - high + 6, CANVAS - 4, 12):
            for wx in range(left + 4, left + wide - 5, 10):
                if rng.random() < 0.55:
                    draw.rectangle((wx, wy, wx + 4, wy + 5), fill=(255, 225, 120))
        left += wide + 2
    return canvas


def _boat(rng: np.random.Generator) -> Image.Image:
    canvas = Image.new("RGB", (CANVAS, CANVAS), _colour(rng, 0.75))
    draw = ImageDraw.Draw(canvas)
    x = int(rng.integers(40, 88))
    horizon = int(rng.integers(70, 92))
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=_colour(rng, 0.3))
    draw.polygon(
        [
            (x - 36, horizon - 4),
            (x + 36, horizon - 4),
            (x + 22, horizon + 16),
            (x - 24, horizon + 16),
        ],
        fill=_colour(rng, 0.2),
    )
    draw.polygon(
        [(x, horizon - 66), (x, horizon - 8), (x + 34, horizon - 8)], fill=_colour(rng, 0.85)
    )
    draw.polygon(
        [(x - 4, horizon - 58), (x - 4, horizon - 8), (x - 28, horizon - 8)],
        fill=_colour(rng, 0.55),
    )
    return canvas


def _letters(rng: np.random.Generator) -> Image.Image:
    from findnemo.images import font

    canvas = Image.new("RGB", (CANVAS, CANVAS), _colour(rng, 0.7))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((8, 8, 120, 120), outline=_colour(rng, 0.25), width=7)
    letters = "".join(rng.choice(list("ABDEGHKMNPRSXZ2457")) for _ in range(4))
    draw.text((16, 4), letters[:2], fill=_colour(rng, 0.2), font=font(62))
    draw.text((24, 58), letters[2:], fill=_colour(rng, 0.35), font=font(54))
    return canvas


def _ridges(rng: np.random.Generator) -> Array:
    x, y = _grid()
    picture = np.broadcast_to(np.array(_colour(rng, 0.8), float), (CANVAS, CANVAS, 3)).copy()
    colour = np.array(_colour(rng, 0.6), float)
    for k in range(4):
        line = (
            0.3
            + 0.17 * k
            + sum(rng.uniform(0.02, 0.1) * np.sin(x * f + rng.uniform(0, 6)) for f in (5, 11, 23))
        )
        picture[y > line] = colour * (1 - 0.24 * k)
    return picture


def _bowl(rng: np.random.Generator) -> Image.Image:
    canvas = Image.new("RGB", (CANVAS, CANVAS), _colour(rng, 0.3))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 92, 128, 128), fill=_colour(rng, 0.5))
    for _ in range(6):
        x = rng.integers(34, 94)
        y = rng.integers(38, 74)
        r = rng.integers(12, 22)
        colour = _colour(rng, 0.55)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        draw.ellipse((x - r // 2, y - r // 2, x - r // 2 + 7, y - r // 2 + 7), fill=(250, 250, 245))
    draw.pieslice((18, 36, 110, 116), 0, 180, fill=_colour(rng, 0.75))
    return canvas


def _galaxy(rng: np.random.Generator) -> Array:
    x, y = _grid()
    u = (x - 0.5) * rng.uniform(1, 1.6)
    v = (y - 0.5) * rng.uniform(1, 1.6)
    radius = np.hypot(u, v) + 1e-3
    angle = np.arctan2(v, u)
    arms = 0.5 + 0.5 * np.cos(
        rng.integers(2, 4) * (angle - rng.choice([-1, 1]) * 4 * np.log(radius))
    )
    light = np.clip(np.exp(-4 * radius) * (0.35 + arms) * 1.6, 0, 1)
    return _palette(rng, light, 3)


def _quilt(rng: np.random.Generator) -> Image.Image:
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(canvas)
    side = CANVAS // 3
    for i in range(3):
        for j in range(3):
            box = (i * side, j * side, (i + 1) * side, (j + 1) * side)
            draw.rectangle(box, fill=_colour(rng))
            corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
            draw.polygon([corners[k] for k in rng.permutation(4)[:3]], fill=_colour(rng))
    return canvas


def _bird(rng: np.random.Generator) -> Image.Image:
    canvas = Image.fromarray(np.clip(_palette(rng, _clouds(rng, 2, 2), 2), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    x = int(rng.integers(50, 78))
    y = int(rng.integers(54, 80))
    body = _colour(rng, 0.45)
    draw.polygon([(x - 54, y + 24), (x - 20, y - 6), (x - 16, y + 18)], fill=_colour(rng, 0.3))
    draw.ellipse((x - 32, y - 22, x + 26, y + 30), fill=body)
    draw.ellipse((x + 4, y - 44, x + 44, y - 6), fill=body)
    draw.polygon([(x + 42, y - 30), (x + 60, y - 22), (x + 42, y - 16)], fill=(245, 170, 40))
    draw.ellipse((x + 24, y - 34, x + 32, y - 26), fill=(10, 10, 10))
    draw.pieslice((x - 30, y - 16, x + 16, y + 26), 20, 200, fill=_colour(rng, 0.65))
    return canvas


def _window(rng: np.random.Generator) -> Image.Image:
    outside = Image.fromarray(np.clip(_ridges(rng), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(outside)
    frame = _colour(rng, 0.25)
    curtain = _colour(rng, 0.6)
    for box in ((0, 0, 128, 14), (0, 110, 128, 128), (58, 0, 68, 128)):
        draw.rectangle(box, fill=frame)
    draw.polygon([(0, 0), (44, 0), (22, 70), (30, 128), (0, 128)], fill=curtain)
    draw.polygon([(128, 0), (92, 0), (110, 66), (100, 128), (128, 128)], fill=curtain)
    return outside


def _fish(rng: np.random.Generator) -> Image.Image:
    canvas = Image.fromarray(np.clip(_palette(rng, _grid()[1], 2), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    x = int(rng.integers(54, 72))
    y = int(rng.integers(50, 78))
    for k in range(5):
        bx, by = rng.integers(6, 122, 2)
        draw.ellipse((bx, by, bx + 6 + k, by + 6 + k), outline=(235, 245, 255), width=2)
    body = _colour(rng, 0.55)
    stripe = _colour(rng, 0.25)
    draw.polygon([(x + 28, y), (x + 60, y - 26), (x + 60, y + 26)], fill=stripe)
    draw.ellipse((x - 46, y - 30, x + 40, y + 30), fill=body)
    for sx in (x - 14, x + 8):
        draw.rectangle((sx, y - 26, sx + 9, y + 26), fill=stripe)
    draw.ellipse((x - 36, y - 14, x - 24, y - 2), fill=(250, 250, 250))
    draw.ellipse((x - 33, y - 11, x - 27, y - 5), fill=(0, 0, 0))
    return canvas


PAINTINGS: dict[str, Callable[[np.random.Generator], Array | Image.Image]] = {
    "julia": _julia,
    "islands": _islands,
    "glass": _glass,
    "arcs": _arcs,
    "ripples": _ripples,
    "rose": _rose,
    "portrait": _portrait,
    "skyline": _skyline,
    "boat": _boat,
    "letters": _letters,
    "ridges": _ridges,
    "bowl": _bowl,
    "galaxy": _galaxy,
    "quilt": _quilt,
    "bird": _bird,
    "window": _window,
    "fish": _fish,
}


def _filling(rng: random.Random) -> Image.Image:
    """The varying part: two colours in bands, in discs or across a diagonal."""
    one, two = (tuple(rng.randint(20, 240) for _ in range(3)) for _ in range(2))
    canvas = Image.new("RGB", (CANVAS, CANVAS), one)
    draw = ImageDraw.Draw(canvas)
    kind = rng.choice(("bands", "discs", "diagonal"))
    if kind == "bands":
        step = rng.randint(14, 30)
        for k in range(0, CANVAS, 2 * step):
            draw.rectangle((k, 0, k + step, CANVAS), fill=two)
    elif kind == "discs":
        for _ in range(6):
            x = rng.randint(20, 108)
            y = rng.randint(20, 108)
            r = rng.randint(10, 22)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=two)
    else:
        draw.polygon([(0, 0), (CANVAS, 0), (0, CANVAS)], fill=two)
    return canvas


def _composed(
    rng: np.random.Generator,
    filling: Image.Image,
    furniture: Callable,
    opening: Callable,
    over: Callable,
) -> Image.Image:
    canvas = Image.fromarray(np.clip(_palette(rng, _clouds(rng, 2, 2), 3), 0, 255).astype(np.uint8))
    furniture(ImageDraw.Draw(canvas))
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    opening(ImageDraw.Draw(mask))
    canvas.paste(filling, (0, 0), mask)
    over(ImageDraw.Draw(canvas))
    return canvas


def _bottle(rng: np.random.Generator, filling: Image.Image) -> Image.Image:
    x = int(rng.integers(40, 88))
    glass = _colour(rng, 0.25)
    table = _colour(rng, 0.5)

    def furniture(d: ImageDraw.ImageDraw) -> None:
        d.rectangle((0, 108, 128, 128), fill=table)
        d.rectangle((x - 9, 6, x + 9, 40), fill=glass)
        d.rounded_rectangle((x - 26, 34, x + 26, 120), 14, fill=glass)

    return _composed(
        rng,
        filling,
        furniture,
        lambda d: d.rectangle((x - 22, 58, x + 22, 98), fill=255),
        lambda d: None,
    )


def _screen(rng: np.random.Generator, filling: Image.Image) -> Image.Image:
    x = int(rng.integers(4, 30))
    case = _colour(rng, 0.3)
    plant = _colour(rng, 0.35)

    def furniture(d: ImageDraw.ImageDraw) -> None:
        d.rounded_rectangle((x, 18, x + 94, 100), 12, fill=case)
        d.polygon([(x + 30, 122), (x + 64, 122), (x + 47, 96)], fill=case)

    def over(d: ImageDraw.ImageDraw) -> None:
        d.ellipse((x + 78, 84, x + 88, 94), fill=(230, 60, 50))
        d.polygon([(112, 128), (128, 70), (122, 128)], fill=plant)

    return _composed(
        rng,
        filling,
        furniture,
        lambda d: d.rounded_rectangle((x + 10, 28, x + 74, 88), 8, fill=255),
        over,
    )


def _book(rng: np.random.Generator, filling: Image.Image) -> Image.Image:
    x = int(rng.integers(16, 42))
    cover = _colour(rng, 0.3)
    ink = _colour(rng, 0.85)

    def furniture(d: ImageDraw.ImageDraw) -> None:
        d.polygon([(x + 6, 14), (x + 84, 20), (x + 84, 124), (x + 6, 118)], fill=(235, 230, 215))
        d.rectangle((x, 8, x + 76, 114), fill=cover)
        d.rectangle((x, 8, x + 10, 114), fill=(20, 20, 25))
        d.rectangle((x + 20, 16, x + 68, 28), fill=ink)

    return _composed(
        rng,
        filling,
        furniture,
        lambda d: d.ellipse((x + 18, 38, x + 70, 100), fill=255),
        lambda d: None,
    )


def _cushion(rng: np.random.Generator, filling: Image.Image) -> Image.Image:
    sofa = _colour(rng, 0.35)
    seam = _colour(rng, 0.8)
    left = rng.random() < 0.5

    def furniture(d: ImageDraw.ImageDraw) -> None:
        d.rectangle((0, 70, 128, 128), fill=sofa)
        d.rounded_rectangle(
            (-10 if left else 96, 36, 30 if left else 140, 128),
            14,
            fill=tuple(c * 3 // 4 for c in sofa),
        )

    box = [(64, 18), (112, 60), (70, 112), (20, 68)]
    return _composed(
        rng,
        filling,
        furniture,
        lambda d: d.polygon(box, fill=255),
        lambda d: d.line([*box, box[0]], fill=seam, width=5),
    )


def _bag(rng: np.random.Generator, filling: Image.Image) -> Image.Image:
    cloth = _colour(rng, 0.7)
    wall = _colour(rng, 0.3)

    def furniture(d: ImageDraw.ImageDraw) -> None:
        d.rectangle((0, 0, 128, 30), fill=wall)
        d.arc((40, 4, 88, 70), 180, 360, fill=cloth, width=8)
        d.polygon([(24, 38), (104, 38), (114, 122), (14, 122)], fill=cloth)

    return _composed(
        rng, filling, furniture, lambda d: d.rectangle((36, 54, 92, 108), fill=255), lambda d: None
    )


TEMPLATES: dict[str, Callable[[np.random.Generator, Image.Image], Image.Image]] = {
    "bottle": _bottle,
    "screen": _screen,
    "book": _book,
    "cushion": _cushion,
    "bag": _bag,
}
