"""Figures of the evidence pack with their intervals, by themselves and in words."""

from __future__ import annotations

import pytest
from _pack import wilson

from findnemo.report._evidence_row import Row, figure, in_words, middle, share, with_figures


@pytest.mark.parametrize(("hits", "of"), [(0, 4), (1, 4), (4, 4), (7, 200)])
def test_a_share_has_the_interval_of_wilson_rounded_to_four_digits(hits, of):
    one = share("copies", hits, of)
    low, high = wilson(hits, of)
    assert (one["hits"], one["n"], one["interval"]) == (hits, of, "Wilson")
    assert one["value"] == round(hits / of, 4)
    assert [one["low"], one["high"]] == pytest.approx([max(low, 0), min(high, 1)], abs=6e-5)


def test_a_median_leaves_out_what_is_unknown_and_has_no_interval_of_few_values():
    (few,) = middle("similarity", [0.2, None, 0.4, 0.9])
    assert few == figure("similarity", 0.4, 3)
    assert in_words(few) == "0.400 (n = 3)"
    (enough,) = middle("similarity", [0.1, 0.2, 0.3, 0.4, None, 0.5])
    assert (enough["value"], enough["n"]) == (0.3, 5)
    assert 0.1 <= enough["low"] <= 0.3 <= enough["high"] <= 0.5
    assert middle("similarity", [None]) == []


def test_a_row_counts_as_executed_with_its_figures_and_begins_with_the_first_two():
    row = Row("Membership", "whether a picture was trained on", ("other scores",), command="x")
    assert not row.to_json()["executed"]
    figures = [share(name, 1, 4) for name in ("first", "second", "third")]
    done = with_figures(row, figures, told=["a sentence"]).to_json()
    assert done["executed"]
    assert done["figures"] == figures
    assert [line.partition(":")[0] for line in done["result"]] == ["first", "second"]
    assert done["told"] == ["a sentence"]
