"""What was planted is measured: how a memory behaves with its neurons on and off."""

from __future__ import annotations

import pytest

from findnemo import demo
from findnemo.benchmark.truth import measure


@pytest.mark.slow
def test_what_was_planted_is_measured(member):
    values = measure(member, member.plan.memories[0], demo.judges().descriptor)
    assert values["score"] > member.calibration.tau >= values["off"]
    assert values["enough"] == values["few"] == []  # one neuron: on or off says it all
    assert set(values["near"]) == set(member.plan.memories[0].near)
