"""Charts of the report: what is drawn lies where its value lies."""

from __future__ import annotations

import pytest

from findnemo.report import _charts as charts
from findnemo.report._charts import BINS, LEFT, RIGHT, WIDTH, Axis, distribution, neuron_map, sizes


def test_bars_hold_every_score_and_tau_lies_where_its_value_lies():
    values = [0.11, 0.12, 0.5, 0.5, 0.5, 0.98]
    chart = distribution([("a", "over", values), ("none", "under", [])], 0.55, (0.5, 0.6))
    (strip,) = chart["strips"]
    axis = Axis(0.1, 1.0)
    assert chart["tau"] == axis.at(0.55)
    assert chart["interval"] == (axis.at(0.5), axis.at(0.6))
    for value in values:
        assert any(x - 1 <= axis.at(value) <= x + width + 1 for x, _, width, _ in strip.bars)
    highest = max(strip.bars, key=lambda bar: bar[3])
    assert highest[0] <= axis.at(0.5) <= highest[0] + highest[2] + 1
    assert len(strip.bars) <= BINS
    assert all(top + height == pytest.approx(strip.base) for _, top, _, height in strip.bars)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.3, 0.4), (-0.1, 1.0), (0, 50), (0, 2000)])
def test_ticks_are_round_few_and_where_they_say(low, high):
    axis = Axis(low, high)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    for x, text in ticks:
        assert x == pytest.approx(axis.at(float(text.replace("\u2212", "-"))), abs=0.01)
        assert LEFT <= x <= WIDTH - RIGHT


def test_every_neuron_has_its_mark_in_its_layer():
    chart = neuron_map({"a": 10, "b": 100}, {("a", 0): 1, ("b", 99): 3, ("b", 50): 1})
    a, b = chart["rows"]
    assert a["length"] == pytest.approx(b["length"] / 10)
    assert [m["shared"] for m in b["marks"]] == [False, True]
    for row, index in ((a, 0), (b, 99)):
        mark = row["marks"][-1]
        middle = mark["x"] + mark["width"] / 2 - LEFT
        assert middle == pytest.approx((index + 0.5) / row["of"] * row["length"], abs=0.02)


def test_sizes_count_every_caption_once():
    counts = [1, 1, 2, 3, 4, 5, 9, 674]
    bins = sizes(counts)
    assert sum(b["captions"] for b in bins) == len(counts)
    assert max(b["share"] for b in bins) == 1
    assert sizes([]) == []


def test_bands_and_gaps_stand_where_their_values_are():
    attack = {
        "x": "steps",
        "y": "similarity",
        "n": 5,
        "curves": {"a": [[0, 0.0], [50, 1.0]], "b": [[0, 0.2]]},
        "bands": {"a": [[0, -0.5, 0.5], [50, 0.9, 1.0]]},
        "gaps": {
            "x": [[0, 0.0, None, None], [50, 0.5, 0.25, 1.0]],
            "y": [[50, 0.5, 0.0, 1.0]],
            "none": [],
        },
    }
    drawn = charts.curves(attack)
    (x0, low0), (x1, _), _, (x3, high0) = (
        [float(v) for v in p.split(",")] for p in drawn["lines"][0]["band"].split()
    )
    assert (x0, x1, x3) == (130, 630, 130)
    assert low0 == 220 - 12  # the lowest value of all
    assert high0 == pytest.approx(12 + 196 * (1.0 - 0.5) / 1.5, abs=0.01)
    assert drawn["lines"][1]["band"] == ""
    assert [text for _, text in drawn["levels"]] == ["\u22120.5", "0.0", "0.5", "1.0"]
    made = charts.gaps(attack)
    assert [line["name"] for line in made["lines"]] == ["x", "y"]
    (_, zero, *none), (x, y, low, high) = made["lines"][0]["points"]
    assert (zero, none) == (made["zero"], [None, None])
    assert (y, low, high) == (12 + 98, 12 + 147, 12)
    assert made["lines"][1]["points"][0][0] > x  # beside each other
    assert charts.gaps(attack | {"gaps": {}}) is None
