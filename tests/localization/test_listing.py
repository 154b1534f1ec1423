"""Algorithm 4 where a similarity is exactly the threshold: dropped in the paper,
kept in the released code.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from findnemo import NeuronSet
from findnemo.localization import refine
from findnemo.settings import PAPER, RELEASED

CANDIDATES = NeuronSet({"one": [0, 1], "two": [4]})


class Measured:
    """Similarities by hand: .6 with neuron 1 of layer one active again, else .4."""

    def __init__(self, settings):
        layers = {"one": None, "two": None}
        self.probe = SimpleNamespace(settings=settings, model=SimpleNamespace(value_layers=layers))

    def similarity(self, neurons: NeuronSet) -> float:
        return 0.4 if ("one", 1) in neurons else 0.6


@pytest.mark.parametrize(
    ("settings", "tau_ref", "left"),
    [
        (PAPER, 0.4, {"one": [1]}),  # what does nothing is dropped
        (RELEASED, 0.4, {"one": [0, 1], "two": [4]}),  # nothing falls below .4
        (RELEASED, 0.4001, {"one": [1]}),
        (RELEASED, 0.6, {"one": [1]}),
        (PAPER, 0.6, {}),
    ],
)
def test_what_stays_at_the_threshold(settings, tau_ref, left):
    assert refine(Measured(settings), CANDIDATES, tau_ref) == NeuronSet(left)
