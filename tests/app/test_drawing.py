"""Thumbnails, scales and the map of the neurons, as HTML."""

from __future__ import annotations

import re

from _asking import Reader
from PIL import Image

from findnemo.app import drawing
from findnemo.app.drawing import Line
from findnemo.app.edit import Edit
from findnemo.neurons import NeuronSet

WIDTHS = {"down": 40, "mid": 8}


def test_the_cells_of_a_map_lie_where_their_neurons_count():
    """32 in a row: neuron 33 is the second of the second row, and 8 are left in that row."""
    edit = Edit(NeuronSet({"down": [33]}), NeuronSet({"mid": [7]}))
    html = drawing.neuron_map(WIDTHS, edit, [("down", 0)])
    placed = re.findall(r'<rect class="(off|scaled|found)" x="(\d+)" y="(\d+)"', html)
    cell = drawing.CELL
    assert placed == [
        ("off", f"{cell + 1}", f"{cell + 1}"),
        ("found", "1", "1"),
        ("scaled", f"{7 * cell + 1}", "1"),
    ]
    assert html.count("<svg") == len(WIDTHS)
    assert f'width="{8 * cell}" height="{cell}" fill="url(#cell)"' in html


def test_chips_are_of_neurons_that_the_model_has_with_what_the_edit_does_to_them():
    edit = Edit(NeuronSet({"mid": [1]}), NeuronSet({"down": [2]}))
    found = [("<b>", ("mid", 1)), ("two", ("down", 2)), ("three", ("mid", 3)), ("no", ("gone", 0))]
    html = drawing.chips(found, edit, list(WIDTHS))
    assert Reader(html).text == "<b>: offtwo: scaledthree: on"
    assert re.findall(r'data-layer="(\d)" data-index="(\d)"', html) == [
        ("1", "1"),
        ("0", "2"),
        ("1", "3"),
    ]
    assert drawing.chips([("no", ("gone", 0))], edit, list(WIDTHS)) == ""


def test_a_scale_from_zero_to_one_holds_values_beyond_it():
    html = drawing.meter("similarity", 1.25, -0.1, 0.7)
    assert Reader(html).text == "similarity: 1.25 before, -0.10 now; a copy from 0.7"
    assert re.findall(r'class="(\w+)" style="left: ([\d.]+)%"', html) == [
        ("was", "100.0"),
        ("now", "0.0"),
        ("limit", "70.0"),
    ]


def test_pictures_of_one_seed_stand_under_each_other_and_lines_without_pictures_are_left_out():
    image = Image.new("RGB", (8, 8))
    lines = [Line("Before", [image] * 2), Line("Empty", []), Line("Now", [image], [0.517])]
    page = Reader(drawing.side_by_side(None, lines, 1000))
    assert page.alts == ["Before, seed 1000", "Before, seed 1001", "Now, seed 1000"]
    assert page.text == "seed 1000seed 1001BeforeNow0.52"
    assert drawing.side_by_side(None, [Line("Empty", [])], 1000) == ""
