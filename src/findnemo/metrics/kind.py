"""Verbatim or template memorization (Finding NeMo, section 2, after Webster 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from findnemo.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics.descriptor import Descriptor

VERBATIM = 0.7  # SSCD above which an image is a copy of the training image
IMAGES = 10  # generations in the paper
ORDINARY = (  # types that mean no memory, in lower case, with spaces for hyphens and underscores
    " ", "n", "none", "no", "n/a", "na", "nan", "null", "0", "0.0", "false", "unknown", "ordinary",
    "normal", "negative", "not memorized", "notmemorized", "non memorized", "nonmemorized", "unmemorized",
)  # fmt: skip


def is_memory(kind: str | None) -> bool:
    """Whether the type that a table gives a caption is that of a memory (VM, TM, or any other).

    It must not be empty, nor a word of `ORDINARY`.

    >>> is_memory("VM"), is_memory("None"), is_memory(None), is_memory("Not_Memorized")
    (True, False, False, False)
    """
    word = str(kind or "").strip().lower().replace("_", " ").replace("-", " ")
    return bool(word) and word not in ORDINARY


def memory_type(similarities: Iterable[float]) -> str:
    """ "VM" if the largest SSCD of the generations (ten in the paper) to the training image exceeds
    .7, else "TM".

    With fewer generations, verbatim memories are missed more easily. Raises InputError if there are
    none, or one is NaN.

    >>> memory_type([0.2, 0.81]), memory_type([0.2, 0.7])
    ('VM', 'TM')
    """
    values = [float(s) for s in similarities]
    if not values or any(map(math.isnan, values)):
        raise InputError(
            f"similarities {values[:IMAGES]} tell no type: give one number for every generation, at"
            " least one"
        )
    return "VM" if max(values) > VERBATIM else "TM"


def classify(descriptor: Descriptor, images: Sequence[Image.Image], original: Image.Image) -> str:
    """The type of a memory from generations of its prompt and its training image.

    Raises InputError if there are no images.

    >>> from findnemo import demo
    >>> image = demo.training_image(demo.memorized()[0].text)
    >>> classify(demo.judges().descriptor, [image], image)
    'VM'
    """
    if not images:
        raise InputError(
            f"no images to compare with the training image: generate some (the paper: {IMAGES})"
        )
    return memory_type(descriptor.similarity(images, [original])[:, 0].tolist())
