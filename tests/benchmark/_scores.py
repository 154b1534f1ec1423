"""One score of each suite, to make others from."""

from __future__ import annotations

from findnemo.benchmark.natural_scoring import NaturalScore
from findnemo.benchmark.planted_scoring import Score

ONE = Score(
    "m",
    "x",
    "c",
    "one neuron",
    "VM",
    {},
    2,
    0.5,
    1.0,
    1.0,
    2.0,
    0.2,
    True,
    0.1,
    False,
    0.9,
    20,
    0.5,
)
ONE_NATURAL = NaturalScore(
    "m", "x", "c", "VM", {}, 4, [0.1, 0.2], 0.15, 0.2, True, 0.96, 0.5, 40, 0.5
)
