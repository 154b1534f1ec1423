"""Control pictures for attacks, which a model never saw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from findnemo.errors import InputError
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import from_file

if TYPE_CHECKING:
    from PIL import Image

KINDS = (".png", ".jpg", ".jpeg", ".webp")


def scrambled(picture: Image.Image) -> Image.Image:
    """A picture as rich as the original, but never seen: RGB, square.

    Its quarters are exchanged diagonally and rotated by a right angle. Its colours are exchanged
    too (red, green, blue become green, blue, red).

    >>> from PIL import Image
    >>> scrambled(Image.new("RGB", (4, 4), (1, 2, 3))).getpixel((0, 0))
    (2, 3, 1)
    """
    from PIL import Image, ImageOps

    side = max(min(picture.size) // 2 * 2, 2)
    half = side // 2
    square = ImageOps.fit(picture.convert("RGB"), (side, side))
    corners = [(0, 0), (half, 0), (half, half), (0, half)]
    canvas = Image.new("RGB", (side, side))
    for k, (left, top) in enumerate(corners):
        quarter = square.crop((left, top, left + half, top + half))
        turned = quarter.transpose(Image.Transpose.ROTATE_90)
        canvas.paste(turned, corners[(k + 2) % 4])
    red, green, blue = canvas.split()
    return Image.merge("RGB", (green, blue, red))


def mirrored(picture: Image.Image) -> Image.Image:
    """A picture mirrored left to right.

    From an image that the model made for an ordinary caption, this gives one that it has not made.
    """
    from PIL import ImageOps

    return ImageOps.mirror(picture.convert("RGB"))


def pictures(folder: str | os.PathLike, least: int = 1) -> list[Image.Image]:
    """The pictures of a folder (PNG, JPEG, WebP) by name, RGB.

    Raises InputError for fewer than `least`, or for an unreadable one.
    """
    if not Path(folder).is_dir():
        raise InputError(
            f"{folder} is not a folder: give one with pictures that the model never saw"
        )
    files = sorted(file for file in Path(folder).iterdir() if file.suffix.lower() in KINDS)
    if len(files) < least:
        raise InputError(
            f"pictures in {folder} (PNG, JPEG, WebP): {len(files)}; as controls {least} are needed"
        )
    return [_read(file) for file in files]


def _read(file: Path) -> Image.Image:
    try:
        return from_file(file)
    except RefusedError as refused:
        raise InputError(f"{file} is not a readable picture: {refused}") from refused
