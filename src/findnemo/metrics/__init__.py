"""Metrics: copy descriptors, alignment with the caption, ranking quality."""

from findnemo.metrics.alignment import Alignment
from findnemo.metrics.descriptor import Descriptor
from findnemo.metrics.roc import auroc, tpr_at_fpr

__all__ = ["Alignment", "Descriptor", "auroc", "tpr_at_fpr"]
