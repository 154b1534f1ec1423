"""Fine-tunes: which training pictures a model copies, during training and afterwards.

May be imported: the names below and the modules without an underscore. May import: images,
metrics, mitigation, prompts and what lies under them.
"""

from findnemo.training.callback import CopyTest, MemorizationCallback, Reading
from findnemo.training.canaries import Canaries, Canary, plant, read_canaries
from findnemo.training.copies import (
    AS_BASE,
    MAIN,
    RATE,
    STATES,
    VERDICTS,
    WAYS,
    Gallery,
    Generation,
    Judgement,
    Picture,
    Sighting,
    image_vectors,
    images_needed,
    judge,
    levels,
    share,
)
from findnemo.training.seen import Seen, Sensitivity, compared, sensitivity

__all__ = [
    "AS_BASE",
    "MAIN",
    "RATE",
    "STATES",
    "VERDICTS",
    "WAYS",
    "Canaries",
    "Canary",
    "CopyTest",
    "Gallery",
    "Generation",
    "Judgement",
    "MemorizationCallback",
    "Picture",
    "Reading",
    "Seen",
    "Sensitivity",
    "Sighting",
    "compared",
    "image_vectors",
    "images_needed",
    "judge",
    "levels",
    "plant",
    "read_canaries",
    "sensitivity",
    "share",
]
