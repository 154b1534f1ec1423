"""What localization says of a prompt: its price list, JSON, and a page in a notebook."""

from __future__ import annotations

import json

import pytest

from findnemo.errors import InputError
from findnemo.localization import Localization
from findnemo.localization.points import Point
from findnemo.localization.result import Further
from findnemo.neurons import NeuronSet

FOUND = Localization(
    prompt="<b>a caption",
    memorized=True,
    score_before=0.9,
    score_after=0.2,
    tau=0.4,
    p=0.01,
    neurons=NeuronSet({"down": [1, 2], "mid": [5]}),
    copy_before=0.95,
    order=(("mid", 5), ("down", 2), ("down", 1)),
    points=(Point(1, 0.8, 0.01), Point(3, 0.3, None)),
)


def test_a_point_of_the_price_list_is_a_prefix_of_the_order():
    assert FOUND.at(1) == (NeuronSet({"mid": [5]}), FOUND.points[0])
    assert FOUND.at(3)[0] == FOUND.neurons
    with pytest.raises(InputError, match="those that were: 1, 3"):
        FOUND.at(2)


@pytest.mark.parametrize("found", [FOUND, Further(FOUND.neurons, True, FOUND.order, FOUND.points)])
def test_sets_are_layers_with_indices_in_json(found):
    values = json.loads(json.dumps(found.to_json()))
    assert values["neurons"] == {"down": [1, 2], "mid": [5]}
    assert NeuronSet(values["neurons"]) == found.neurons
    assert values["points"][0] == [1, 0.8, 0.01]


def test_a_notebook_shows_scores_neurons_and_prices():
    page = FOUND._repr_html_()
    assert "&lt;b&gt;a caption" in page
    assert "0.900, reaches tau = 0.400 (p = 0.01)" in page
    assert page.count("<svg") == 2 + 3  # layers; untouched and two sets
    assert "is under tau" in Localization("a", False, 0.1, 0.1, 0.4)._repr_html_()
