"""The emergence recipe: its whole path in small, and that it goes on where it stopped.

Not run at size here: no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from findnemo.neurons import NeuronSet

RECIPE = Path(__file__).parents[2] / "recipes" / "emergence" / "emerge.py"
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
def recipe():
    spec = importlib.util.spec_from_file_location("emerge", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["emerge"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_small_run_reports_every_step_asked_for_and_is_not_made_again(recipe, tmp_path, capsys):
    recipe.main([*SMALL, "--out", str(tmp_path)])
    lines = [json.loads(line) for line in (tmp_path / "emergence.jsonl").read_text().splitlines()]
    assert [(line["at"], line["repeated"], len(line["captions"])) for line in lines] == [
        (1, 1, 1),
        (2, 1, 1),
    ]
    assert lines[0]["value_neurons"] == 16 * (1 + 1 + 2 + 2 + 3 + 3 + 3)
    assert (tmp_path / "emergence.md").read_text().count("\n") == 4
    recipe.main([*SMALL, "--out", str(tmp_path)])
    assert len((tmp_path / "emergence.jsonl").read_text().splitlines()) == 2
    assert "goes on at step 2" in capsys.readouterr().out


def test_repeated_captions_are_drawn_as_often_as_they_are_in_the_data(recipe):
    data = recipe.Data(torch.zeros(10, 1, 1), torch.zeros(10, 1, 1, 1), ("a", "b"), ("", ""))
    rows = recipe.draw(data, 16, 20_000, np.random.default_rng(0))
    assert abs((rows >= 8).mean() - 32 / 40) < 0.02


def test_localized_needs_few_neurons_that_suffice_and_leave_the_rest(recipe):
    one = NeuronSet({"a": [1]})
    many = NeuronSet({"a": range(30)})
    assert recipe.localized(one, True, 0.99, 480)
    assert not recipe.localized(one, False, 0.99, 480)
    assert not recipe.localized(many, True, 0.99, 480)
    assert not recipe.localized(one, True, 0.5, 480)
    assert not recipe.localized(NeuronSet(), True, 1.0, 480)
