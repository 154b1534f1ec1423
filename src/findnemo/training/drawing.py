"""Pictures drawn by arithmetic alone, which are nobody else's work and in no training set.

A picture depends on its seed only, and is the same at every size.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from findnemo.metrics.copies import pixel_vectors

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray
SHAPES = 5
THUMB = 64  # side at which pictures are compared
ALIKE = 0.4  # largest correlation of the pixels of two pictures in a set


def drawn(seed: Sequence[int], size: int, ground: str | None = None) -> Image.Image:
    """The picture of a seed, `size` pixels wide and high: a ground, and shapes on it.

    `ground`: a name in GROUNDS; None draws one.

    >>> drawn([0, 1], 64) == drawn([0, 1], 64), drawn([0, 1], 64) == drawn([0, 2], 64)
    (True, False)
    """
    from PIL import Image

    rng = np.random.default_rng(list(seed))
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    kinds = list(GROUNDS)
    chance = kinds[rng.integers(len(kinds))]
    picture = GROUNDS[ground or chance](rng, x, y)
    for _ in range(SHAPES):
        inside = _shape(rng, x, y)
        picture = np.where(inside[..., None], _filling(rng, x, y), picture)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def distinct(grounds: Sequence[str], seed: int, size: int) -> list[Image.Image]:
    """A picture on each of some grounds, no two similar, not even mirrored.

    The correlation of their pixels at 64 x 64 is at most `ALIKE`.

    >>> one, other = distinct(["cells", "cells"], seed=0, size=64)
    >>> float((pixel_vectors([one]) * pixel_vectors([other])).sum()) < 0.4
    True
    """
    from PIL import ImageOps

    kept: list[list[int]] = []
    seen: list[Image.Image] = []
    for number, ground in enumerate(grounds):
        for attempt in count():
            one = [seed, number, attempt]
            small = drawn(one, THUMB, ground)
            both = pixel_vectors([small, ImageOps.mirror(small)])
            if not seen or float((both @ pixel_vectors(seen).T).amax()) <= ALIKE:
                break
        kept.append(one)
        seen.append(small)
    return [drawn(one, size, ground) for one, ground in zip(kept, grounds, strict=True)]


# grounds: (H, W, 3), 0 to 255 ---------------------------------------------------------------------


def _cells(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Leaded glass: each place has the colour of the nearest of some points."""
    points = rng.random((int(rng.integers(6, 13)), 2))
    distance = np.stack([np.hypot(x - a, y - b) for a, b in points])
    first, second = np.sort(distance, 0)[:2]
    colours = _colours(rng, len(points))[distance.argmin(0)]
    return np.where((second - first < 0.02)[..., None], 20.0, colours)


def _waves(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Ripples around three points."""
    points = rng.uniform(-0.2, 1.2, (3, 2))
    pitch = rng.uniform(10, 30, 3)
    waves = sum(np.sin(f * np.hypot(x - a, y - b)) for f, (a, b) in zip(pitch, points, strict=True))
    return _palette(rng, np.asarray(waves) / 6 + 0.5)


def _contours(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """A map of heights in steps."""
    return _palette(rng, np.floor(_clouds(rng, x, y) * 7) / 7, 5)


def _bands(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Bent stripes."""
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y + 0.25 * _clouds(rng, x, y)
    number = np.floor(along * rng.uniform(5, 12)).astype(int)
    colours = _colours(rng, int(rng.integers(3, 6)))
    return colours[number % len(colours)]


def _spiral(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Arms that wind around a point."""
    a, b = rng.uniform(0.2, 0.8, 2)
    radius = np.hypot(x - a, y - b) + 1e-3
    turned = np.arctan2(y - b, x - a) + rng.choice([-1, 1]) * rng.uniform(1, 4) * np.log(radius)
    return _palette(rng, 0.5 + 0.5 * np.sin(int(rng.integers(2, 6)) * turned))


GROUNDS: dict[str, Callable[[np.random.Generator, Array, Array], Array]] = {
    "cells": _cells,
    "waves": _waves,
    "contours": _contours,
    "bands": _bands,
    "spiral": _spiral,
}


# shapes and colours -------------------------------------------------------------------------------


def _shape(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Where a disc, ring, star, box or cross is, (H, W)."""
    kind = rng.integers(5)
    a, b = rng.uniform(0.1, 0.9, 2)
    size = rng.uniform(0.1, 0.26)
    angle = rng.uniform(0, 2 * np.pi)
    u = (np.cos(angle) * (x - a) + np.sin(angle) * (y - b)) / size
    v = (np.cos(angle) * (y - b) - np.sin(angle) * (x - a)) / size
    radius = np.hypot(u, v)
    spikes = int(rng.integers(3, 8))
    if kind == 0:
        return radius < 1
    if kind == 1:
        return (radius < 1) & (radius > 0.55)
    if kind == 2:
        return radius < 0.7 + 0.4 * np.cos(spikes * np.arctan2(v, u))
    if kind == 3:
        return np.maximum(np.abs(u), 1.6 * np.abs(v)) < 1
    return (np.minimum(np.abs(u), np.abs(v)) < 0.3) & (np.maximum(np.abs(u), np.abs(v)) < 1)


def _filling(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """One colour, or two in stripes or dots, (H, W, 3)."""
    one, two = _colours(rng, 2)
    kind = rng.integers(3)
    pitch = rng.uniform(40, 90)
    angle = rng.uniform(0, np.pi)
    stripes = np.sin(pitch * (np.cos(angle) * x + np.sin(angle) * y)) > 0
    dots = np.sin(pitch * x) * np.sin(pitch * y) > 0.35
    other = (np.zeros_like(stripes), stripes, dots)[kind]
    return np.where(other[..., None], two, one)


def _clouds(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Smooth noise in [0, 1]: waves of many directions; longer ones are higher."""
    total = np.zeros_like(x)
    for _ in range(14):
        fx, fy = rng.uniform(-4, 4, 2)
        total += np.cos(2 * np.pi * (fx * x + fy * y + rng.random())) / (1 + np.hypot(fx, fy))
    return 0.5 + 0.5 * np.tanh(1.2 * total)


def _colours(rng: np.random.Generator, number: int) -> Array:
    """Colours (number, 3), dark and light in turn."""
    light = [0.25, 0.7]
    first = int(rng.integers(2))
    return np.array(
        [
            [
                255 * c
                for c in colorsys.hls_to_rgb(
                    rng.random(),
                    light[(k + first) % 2] + rng.uniform(-0.1, 0.1),
                    rng.uniform(0.5, 1),
                )
            ]
            for k in range(number)
        ]
    )


def _palette(rng: np.random.Generator, values: Array, stops: int = 4) -> Array:
    """Values in [0, 1] as colours between `stops` random ones."""
    colours = _colours(rng, stops)
    place = np.clip(values, 0, 0.999) * (stops - 1)
    low = place.astype(int)
    share = (place % 1)[..., None]
    return colours[low] * (1 - share) + colours[low + 1] * share
