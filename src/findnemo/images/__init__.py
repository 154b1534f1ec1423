"""Finished images: make them with a pipeline, show them, keep them as PNG.

May be imported: the names below. May import: models and what lies under them.
"""

from findnemo.images._images import (
    ImageSettings,
    check_images,
    decoded_pictures,
    font,
    generate,
    generate_many,
    intact_png,
    latents_of,
    noise_pictures,
    pixels,
    png,
    save_png,
    sheet,
    to_pil,
    usual,
)

__all__ = [
    "ImageSettings",
    "check_images",
    "decoded_pictures",
    "font",
    "generate",
    "generate_many",
    "intact_png",
    "latents_of",
    "noise_pictures",
    "pixels",
    "png",
    "save_png",
    "sheet",
    "to_pil",
    "usual",
]
