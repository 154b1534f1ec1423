"""A search without gradients: the most unusual neurons, twice as many until they suffice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from findnemo import NeuronSet
from findnemo.localization import most_unusual


def doubling(
    replication: Any, z: Mapping[str, Tensor], absolute: Mapping[str, Tensor]
) -> NeuronSet:
    """1, 2, 4, ... neurons of the largest |z|, the first set with which no seed resembles itself by
    more than tau; all neurons where none is.
    """
    order = most_unusual(z)
    count = 1
    while True:
        neurons = NeuronSet.of(order[:count])
        if replication.similarity(neurons) <= replication.tau or count >= len(order):
            return neurons
        count *= 2
