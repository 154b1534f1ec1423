"""Verification: is the memory gone on fresh seeds and in finished images, and is the quality intact?

May be imported: the names below. May import: localization, metrics, images and what lies under them.
"""

from findnemo.verification._verification import (
    RANDOM,
    Verification,
    fresh_same_seed,
    grow,
    quality,
    random_sets,
    replicating,
    same_seed,
    verify,
)
from findnemo.verification.disentanglement import attention_cosine

__all__ = [
    "RANDOM",
    "Verification",
    "attention_cosine",
    "fresh_same_seed",
    "grow",
    "quality",
    "random_sets",
    "replicating",
    "same_seed",
    "verify",
]
