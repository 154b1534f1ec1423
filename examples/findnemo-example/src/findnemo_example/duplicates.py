"""Near-duplicates among generations (Carlini et al. 2023, section 4.2): a memorized caption gives
nearly the same image for different seeds.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from findnemo import ImageSettings, Model, generate
from findnemo.detection import Method, Score, counting
from findnemo.errors import InputError

TILES = 4  # a side: the distance is that of the worst of 16 tiles


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest root mean squared difference over the tiles of two images (H, W, 3) in [0, 1].

    A plain distance would call two different objects on the same white ground alike.
    """
    squared = np.square(a - b).mean(2)
    rows = (strip for strip in np.array_split(squared, TILES, 0))
    tiles = (tile for strip in rows for tile in np.array_split(strip, TILES, 1))
    return float(max(tile.mean() for tile in tiles) ** 0.5)


def nearest(model: Model, prompt: str, settings: ImageSettings, *, images: int = 4) -> Score:
    """1 minus the smallest `distance` of two of the images, in [0, 1]."""
    if images < 2:
        raise InputError(f"duplicates are sought among 2 images or more, not {images}")
    with counting(model) as spent:
        made = generate(model, prompt, range(images), settings)
    pixels = [np.asarray(image, dtype=np.float64) / 255 for image in made]
    closest = min(distance(a, b) for a, b in combinations(pixels, 2))
    return Score(1 - closest, spent.evaluations)


duplicates = Method(nearest, "Near-duplicates (Carlini et al.)", "Carlini et al. 2023, section 4.2")
