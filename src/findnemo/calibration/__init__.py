"""Calibration on hold-out prompts: activation statistics of every neuron, and the threshold tau
of the memorization score.

May be imported: the names below. May import: passes, statistics and what lies under them.
"""

from findnemo.calibration._calibrate import PRECISION, Rule, calibrate, calibrate_in, groups_of
from findnemo.calibration._calibration import Calibration
from findnemo.calibration._early import (
    MISS,
    early_bounds,
    ends_early,
    holdout_for,
    least_after,
    least_before,
    promised,
    steadiness,
)
from findnemo.calibration._gathered import CHUNK, Chunk, Group, Parts, chained, prompts_digest
from findnemo.calibration._published import PUBLISHED_TAU, import_statistics
from findnemo.calibration._statistics import (
    Moments,
    activations,
    layer_activations,
    tau_interval,
    threshold,
)

__all__ = [
    "CHUNK",
    "MISS",
    "PRECISION",
    "PUBLISHED_TAU",
    "Calibration",
    "Chunk",
    "Group",
    "Moments",
    "Parts",
    "Rule",
    "activations",
    "calibrate",
    "calibrate_in",
    "chained",
    "early_bounds",
    "ends_early",
    "groups_of",
    "holdout_for",
    "import_statistics",
    "layer_activations",
    "least_after",
    "least_before",
    "promised",
    "prompts_digest",
    "steadiness",
    "tau_interval",
    "threshold",
]
