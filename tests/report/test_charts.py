"""Charts of the report: what is drawn lies where its value lies."""

from __future__ import annotations

import pytest

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
