"""Fine-tunes: which training pictures a model gives back, while it is trained and afterwards.

May be imported: the names below. May import: images, metrics, mitigation and what lies under them.
"""

from findnemo.training.copies import (
    COPY,
    NEAR,
    RATE,
    SAME,
    STATES,
    WAYS,
    Gallery,
    Generation,
    Judgement,
    Picture,
    Sighting,
    controlled,
    described,
    judge,
    needed,
    share,
)

__all__ = [
    "COPY",
    "NEAR",
    "RATE",
    "SAME",
    "STATES",
    "WAYS",
    "Gallery",
    "Generation",
    "Judgement",
    "Picture",
    "Sighting",
    "controlled",
    "described",
    "judge",
    "needed",
    "share",
]
