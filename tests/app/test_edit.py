"""Edits as values: clicks, the slider, neurons in writing, links."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findnemo.app import edit
from findnemo.app.edit import (
    FINE,
    NONE,
    Edit,
    View,
    link,
    neurons_as_text,
    neurons_from_text,
    view_from_query,
)
from findnemo.errors import InputError
from findnemo.neurons import EMPTY, NeuronSet

WIDTHS = {"down": 40, "mid": 8, "up": 16}
ORDER = (("mid", 3), ("down", 39), ("up", 0), ("mid", 1))

sets = st.dictionaries(st.sampled_from(list(WIDTHS)), st.sets(st.integers(0, 7))).map(NeuronSet)


def test_neurons_in_writing():
    both = neurons_from_text("1: 7, #9; down: 4\n2: 0-3", WIDTHS)
    assert both == NeuronSet({"down": [4, 7, 9], "mid": range(4)})
    assert neurons_from_text(" ; \n", WIDTHS) == EMPTY


@pytest.mark.parametrize(
    "text",
    [
        *("4", "1:", "1: x", "1: -1", "1: 1.5", "1: 99999", "0: 1", "14: 1", "nonsense: 1"),
        *("1: ²", ":1", "1: 3-1", "1: 0-40", "1: 1-2-3", "1: 0-99999999999"),
    ],
)
def test_what_names_no_neurons_is_refused(text):
    with pytest.raises(InputError, match=r"names no neurons|no layer|no neuron"):
        neurons_from_text(text, WIDTHS)


def test_too_much_in_writing_is_refused():
    with pytest.raises(InputError, match="10001 characters"):
        neurons_from_text("x" * 10_001, WIDTHS)


@given(sets)
def test_what_is_written_is_read(neurons):
    assert neurons_from_text(neurons_as_text(neurons, WIDTHS), WIDTHS) == neurons
    assert neurons_from_text(neurons_as_text(neurons, WIDTHS, ","), WIDTHS) == neurons


@given(sets, sets, st.sampled_from([-1, 0.25, 1.0]), st.integers(0, 2**31 - 1))
def test_a_link_leads_to_what_it_was_made_of(off, scaled, factor, seed):
    scaled -= off
    shown = Edit(off, scaled, factor if scaled else edit.HALF)
    view = View(7, "", shown, seed)
    assert view_from_query(link(view, WIDTHS, 1000), WIDTHS, 1000) == view


NAMES = st.sampled_from(["caption", "text", "off", "scaled", "factor", "seed"])


@given(st.dictionaries(NAMES, st.text()), st.text())
def test_any_query_is_a_view_or_refused(query, more):
    asked = f"?{urlencode(query, errors='ignore')}"
    try:
        view = view_from_query(asked, WIDTHS, 1000)
        view_from_query(asked + more, WIDTHS, 1000)
    except InputError:
        return
    assert (view is None) == (not {"caption", "text"} & set(query))


def test_three_clicks_lead_back():
    edits = [NONE]
    for _ in range(3):
        edits.append(edit.clicked(edits[-1], ("mid", 3)))
    assert [str(one) for one in edits] == [
        "0 neurons off",
        "1 neuron off",
        "1 neuron times 0.5",
        "0 neurons off",
    ]
    both = edit.clicked(edit.clicked(NONE, ("mid", 3)), ("down", 3))
    assert edit.clicked(both, ("mid", 3)) == Edit(NeuronSet({"down": [3]}), NeuronSet({"mid": [3]}))


def test_a_click_on_a_layer_takes_all_of_it():
    some = Edit(NeuronSet({"mid": [1], "up": [2]}), NeuronSet({"mid": [3]}))
    whole = edit.layer_clicked(some, "mid", 8)
    assert whole == Edit(NeuronSet({"mid": range(8), "up": [2]}))
    assert edit.layer_clicked(whole, "mid", 8) == Edit(NeuronSet({"up": [2]}))


@given(st.integers(0, 4 * len(ORDER)).map(lambda k: k / 4))
def test_the_slider_goes_from_none_to_all(position):
    made = edit.edit_at(ORDER, position)
    assert edit.position(ORDER, made) == pytest.approx(position)
    assert made.off == NeuronSet.of(ORDER[: int(position)])
    assert len(made.off | made.scaled) == -(-position // 1)
    factors = [0.0] * len(made.off) + [made.factor] * len(made.scaled)
    assert sum(1 - f for f in factors) == pytest.approx(position)


def test_the_slider_stops_between_few_neurons():
    assert edit.step(ORDER) == 0.25
    assert edit.step(ORDER * FINE) == 1
    assert edit.edit_at((), 0) == NONE
    for beyond in (-0.25, 4.25, None, float("nan")):
        with pytest.raises(InputError, match="position"):
            edit.edit_at(ORDER, beyond)
