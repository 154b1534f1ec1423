"""Metrics: copy descriptors, alignment with the caption, image quality, disentanglement, ranking quality, robust summaries."""

from findnemo.metrics.alignment import Alignment
from findnemo.metrics.descriptor import Descriptor
from findnemo.metrics.disentanglement import attention_cosine
from findnemo.metrics.intervals import bootstrap, clopper_pearson, mean_interval, wilson
from findnemo.metrics.kind import classify, memory_type
from findnemo.metrics.quality import ClipFeatures, Inception, clean_resize, fid, frechet_distance, kernel_distance, kid
from findnemo.metrics.robust import mean_std, median_mad
from findnemo.metrics.roc import accuracy_of, auroc, tpr_at_fpr

__all__ = [
    "Alignment",
    "ClipFeatures",
    "Descriptor",
    "Inception",
    "accuracy_of",
    "attention_cosine",
    "auroc",
    "bootstrap",
    "classify",
    "clean_resize",
    "clopper_pearson",
    "fid",
    "frechet_distance",
    "kernel_distance",
    "kid",
    "mean_interval",
    "mean_std",
    "median_mad",
    "memory_type",
    "tpr_at_fpr",
    "wilson",
]
