"""The target of an attack: a caption with its picture, and other pictures that show whether it came
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from findnemo.images import ImageSettings, generate
from findnemo.metrics.copies import pixel_vectors
from findnemo.models import Model
from findnemo.seeds import UNTOUCHED, WANTED

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

BESIDE = 3  # untouched images of the caption, in addition to the picture


@dataclass(frozen=True)
class AttackedCaption:
    """A caption under attack.

    `picture`: what the attacker wants back. `others`: images of the untouched model for the
    caption, on other seeds. `known`: whether `picture` is the training image; otherwise it is an
    image of the untouched model.
    """

    prompt: str
    picture: Image.Image
    others: tuple[Image.Image, ...] = ()
    known: bool = True


def subject(
    model: Model, prompt: str, settings: ImageSettings, picture: Image.Image | None = None
) -> AttackedCaption:
    """A caption with its training image, or with an image of the untouched model if that is
    unknown.

    Call it while no edit is in force. Raises NumericalError if the model gives NaN.

    >>> import findnemo
    >>> attacked = subject(findnemo.load("demo"), "a red star", findnemo.ImageSettings(steps=2))
    >>> attacked.known, len(attacked.others)
    (False, 3)
    """
    samples = [WANTED, *range(UNTOUCHED, UNTOUCHED + BESIDE)]
    first, *others = generate(model, prompt, samples, settings)
    if picture is None:
        return AttackedCaption(prompt, first, tuple(others), known=False)
    return AttackedCaption(prompt, picture.convert("RGB"), tuple(others))


def closeness(
    images: Sequence[Image.Image],
    references: Sequence[Image.Image],
    descriptor: Descriptor | None = None,
) -> Tensor:
    """Similarity of each image to the nearest reference: (N,), in [-1, 1].

    It is that of the descriptor. Without a descriptor it is the correlation of pixels, with
    references resized to the images.
    """
    if descriptor is not None:
        return descriptor.similarity(images, references).amax(1)
    resized = [reference.convert("RGB").resize(images[0].size) for reference in references]
    return (pixel_vectors(images) @ pixel_vectors(resized).T).amax(1)
