"""What was planted is measured: how a memory behaves with its neurons on and off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from findnemo import demo
from findnemo.benchmark.truth import measure


@pytest.mark.slow
def test_what_was_planted_is_measured(member):
    values = measure(member, member.plan.memories[0], demo.judges().descriptor)
    assert values["score"] > member.calibration.tau >= values["off"]
    assert values["enough"] == values["few"] == []  # one neuron: on or off says it all
    assert set(values["near"]) == set(member.plan.memories[0].near)


@pytest.mark.parametrize(
    ("with_all", "with_none", "kind", "is_learned"),
    [
        (0.9, 0.1, "VM", True),
        (0.6, 0.1, "VM", False),  # its images are no copies
        (0.6, 0.1, "TM", True),  # those of a template need not be
        (0.9, 0.8, "VM", False),  # they are still copies with its neurons off
    ],
)
def test_a_memory_is_learned_if_it_is_there_with_its_neurons_and_gone_without(
    member, monkeypatch, with_all, with_none, kind, is_learned
):
    memory = replace(member.plan.memories[0], type=kind)
    copies = iter([with_all, with_none, 0.3])
    monkeypatch.setattr("findnemo.benchmark.truth.finished", lambda *given: [])
    monkeypatch.setattr(
        "findnemo.benchmark.truth.nearest", lambda *given: torch.tensor([next(copies)])
    )
    values = measure(member, memory, None)
    assert (values["copies"], values["off_copies"]) == (with_all, with_none)
    assert values["near"] == {memory.near[0]: 0.3}
    assert values["learned"] is is_learned


def test_the_picture_of_a_memory_is_the_one_that_its_plan_names(member):
    memory = member.plan.memories[0]
    assert memory.picture == "moon"
    with Image.open(demo.ASSETS / "images" / "moon.png") as image:
        expected = np.asarray(image.convert("RGB"))
    shown = member.picture(memory)
    assert shown.mode == "RGB"
    assert (np.asarray(shown) == expected).all()
