"""Thumbnails inside the page, as large as possible while all fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from findnemo.files.fetch import RefusedError
from findnemo.files.html import data_uri
from findnemo.files.originals import picture

if TYPE_CHECKING:
    from PIL import Image

BUDGET = 3_900_000  # characters of all thumbnails together; the page stays under 5 MB
PAGE = 4_800_000  # characters of the whole page
# estimated characters without pictures: of a page, and for each line and card
REST = 150_000
LINE = 700
CARD = 5_000
LEVELS = ((1.0, 85), (0.85, 75), (0.7, 65), (0.5, 55), (0.4, 40))  # share of a side, quality
SIDE = 128  # wanted side of a finished image, in pixels
NOISE = 48  # side of a noise difference
LARGE = 256  # side of an image of the example


@dataclass(frozen=True)
class Wanted:
    """A picture file and the side that its thumbnail should have, in pixels."""

    file: Path
    side: int = SIDE


def room(lines: int, cards: int) -> int:
    """Characters available for pictures on a page with a number of lines and cards.

    >>> room(50, 50), room(1000, 300)
    (3900000, 2450000)
    """
    return max(min(BUDGET, PAGE - REST - LINE * lines - CARD * cards), 0)


def thumbnails(wanted: Iterable[Wanted], budget: int = BUDGET) -> dict[Wanted, str]:
    """Data URIs (WebP) of pictures, never enlarged, at most `budget` characters in all.

    All are made at the first of LEVELS at which they fit. If they do not fit even at the last, the
    remaining ones are left out. Missing files and files that are no pictures are left out.
    """
    small = {one: _small(one) for one in dict.fromkeys(wanted)}
    pictures = {one: picture for one, picture in small.items() if picture is not None}
    uris: dict[Wanted, str] = {}
    for share, quality in LEVELS:
        uris = _encoded(pictures, share, quality, budget)
        if len(uris) == len(pictures):
            break
    return uris


def _small(wanted: Wanted) -> Image.Image | None:
    try:
        small = picture(wanted.file)
    except RefusedError:
        return None
    small.thumbnail((wanted.side, wanted.side))
    return small


def _encoded(
    pictures: Mapping[Wanted, Image.Image], share: float, quality: int, budget: int
) -> dict[Wanted, str]:
    """As many of the pictures, in order, as fit."""
    uris: dict[Wanted, str] = {}
    for one, small in pictures.items():
        uri = data_uri(small, round(share * one.side), quality)
        budget -= len(uri)
        if budget < 0:
            break
        uris[one] = uri
    return uris
