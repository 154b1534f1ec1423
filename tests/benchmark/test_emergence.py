"""The emergence recipe: its whole path in small, and that it goes on where it stopped.

Not run at size here: no GPU.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from _recipes import recipe

from findnemo.neurons import NeuronSet

SMALL = [
    "--widths",
    "16",
    "--repeats",
    "5",
    "--at",
    "1,2",
    "--scenes",
    "6",
    "--captions",
    "1",
    "--holdout",
    "2",
    "--batch",
    "4",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def emerge():
    return recipe("emergence/emerge")


@pytest.mark.slow
def test_a_small_run_reports_every_step_asked_for_and_is_not_made_again(emerge, tmp_path, capsys):
    emerge.main([*SMALL, "--out", str(tmp_path)])
    lines = [json.loads(line) for line in (tmp_path / "emergence.jsonl").read_text().splitlines()]
    assert [(line["at"], line["repeated"], len(line["captions"])) for line in lines] == [
        (1, 1, 1),
        (2, 1, 1),
    ]
    assert lines[0]["value_neurons"] == 16 * (1 + 1 + 2 + 2 + 3 + 3 + 3)
    assert (tmp_path / "emergence.md").read_text().count("\n") == 4
    emerge.main([*SMALL, "--out", str(tmp_path)])
    assert len((tmp_path / "emergence.jsonl").read_text().splitlines()) == 2
    assert "goes on at step 2" in capsys.readouterr().out


def test_repeated_captions_are_drawn_as_often_as_they_are_in_the_data(emerge):
    data = emerge.Data(torch.zeros(10, 1, 1), torch.zeros(10, 1, 1, 1), ("a", "b"), ("", ""))
    rows = emerge.draw(data, 16, 20_000, np.random.default_rng(0))
    assert abs((rows >= 8).mean() - 32 / 40) < 0.02


def test_localized_needs_few_neurons_that_suffice_and_leave_the_rest(emerge):
    one = NeuronSet({"a": [1]})
    many = NeuronSet({"a": range(30)})
    assert emerge.localized(one, True, 0.99, 480)
    assert not emerge.localized(one, False, 0.99, 480)
    assert not emerge.localized(many, True, 0.99, 480)
    assert not emerge.localized(one, True, 0.5, 480)
    assert not emerge.localized(NeuronSet(), True, 1.0, 480)
