"""Statistics: rates and their bounds, intervals, ranking quality, robust summaries.

May be imported: the names below and the modules here. May import: errors and seeds.
"""

from findnemo.stats.intervals import bootstrap, clopper_pearson, mean_interval, wilson
from findnemo.stats.robust import mean_std, median_mad
from findnemo.stats.roc import accuracy_of, auroc, tpr_at_fpr

__all__ = [
    "accuracy_of",
    "auroc",
    "bootstrap",
    "clopper_pearson",
    "mean_interval",
    "mean_std",
    "median_mad",
    "tpr_at_fpr",
    "wilson",
]
