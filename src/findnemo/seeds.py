"""Which random numbers are drawn for what: seeds by identity, and the ranges of sample numbers,
so that no figure is of a seed that anything was decided on.
"""

from __future__ import annotations

import hashlib

SEARCH = 0  # detection, calibration and localization: 0, 1, ...
FRESH = 1000  # verification and every figure of a method: no search has seen them
# for captions that came back with all neurons off: their further search has seen those samples of
# FRESH that copied, so they are judged on these
AGAIN = 2000
# the untouched image that replaces an unavailable training image; and for ordinary captions, the one
# with which others are compared
WANTED = 3000
UNTOUCHED = 3001  # further untouched images
ATTEMPTS = 4000  # images of attempts to bring a picture back
ATTACK = 5000  # images of optimized embeddings
SURROGATES = 6000  # images that hardening trains on
ORDINARY = 6500  # images of ordinary captions that hardening keeps
REFERENCE = 7000  # untouched images that sets of images are compared with
WATCH = 7500  # images checked while a model is trained
TRAINED = 8000  # images compared with training pictures
CONFIRMED = 9000  # further such images, of a model that was chosen by those of TRAINED


def sample_seed(seed: int, prompt: str, sample: int) -> int:
    """Seed of sample k of a prompt: depends on the prompt's identity and the sample number only.

    >>> sample_seed(0, "a cat", 1) == sample_seed(0, "a cat", 1) != sample_seed(0, "a cat", 2)
    True
    """
    return (
        int.from_bytes(hashlib.sha256(f"{seed}\0{prompt}\0{sample}".encode()).digest()[:8], "big")
        >> 1
    )
