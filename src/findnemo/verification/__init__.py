"""Verification: whether a memory is gone on fresh seeds and in finished images, and how other
captions change.

May be imported: the names below and the modules here. May import: passes, mitigation, metrics,
images, prompts and what lies under them.
"""

from findnemo.verification.cost import (
    RANDOM,
    Pictures,
    changes,
    distance,
    distances,
    pictured,
    quality,
    random_sets,
)
from findnemo.verification.disentanglement import attention_cosine
from findnemo.verification.effect import (
    Look,
    Looked,
    Verification,
    copying_seeds,
    finished,
    fresh,
    nearest,
    replicating,
    same_seed,
    same_seed_of_memory,
    verify,
)

__all__ = [
    "RANDOM",
    "Look",
    "Looked",
    "Pictures",
    "Verification",
    "attention_cosine",
    "changes",
    "copying_seeds",
    "distance",
    "distances",
    "finished",
    "fresh",
    "nearest",
    "pictured",
    "quality",
    "random_sets",
    "replicating",
    "same_seed",
    "same_seed_of_memory",
    "verify",
]
