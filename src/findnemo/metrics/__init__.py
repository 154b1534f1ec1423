"""Metrics of finished images: copies, alignment with the caption, quality, kind of memory.

May be imported: the names below and the modules here. May import: models, statistics and what lies
under them.
"""

from findnemo.metrics.alignment import Alignment
from findnemo.metrics.copies import Judges
from findnemo.metrics.descriptor import Descriptor
from findnemo.metrics.kind import classify, memory_type
from findnemo.metrics.quality import (
    ClipFeatures,
    Inception,
    clean_resize,
    fid,
    frechet_distance,
    kernel_distance,
    kid,
)

__all__ = [
    "Alignment",
    "ClipFeatures",
    "Descriptor",
    "Inception",
    "Judges",
    "classify",
    "clean_resize",
    "fid",
    "frechet_distance",
    "kernel_distance",
    "kid",
    "memory_type",
]
