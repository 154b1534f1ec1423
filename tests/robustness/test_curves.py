"""Curves over the steps of an attack, gaps between them and shares of copies, by hand."""

from findnemo.robustness.curves import curve, gap, shares, strongest


def test_curves_gaps_and_shares_by_hand():
    rows = [{0: 0.0, 5: 1.0}, {0: 0.5, 5: 0.8}]
    assert curve(rows) == [(0, 0.25, None, None), (5, 0.9, None, None)]
    assert gap(rows, [{5: 0.4, 9: 1.0}]) == [(5, 0.5, None, None)]
    ((_, value, low, high),) = gap([{1: v} for v in (0.8, 0.9, 1.0, 0.7, 0.6)], [{1: 0.1}] * 5)
    assert value == 0.7
    assert low < 0.7 < high
    one = shares([{"a": [0.9, 0.1]}, {"a": [0.69, 0.1]}, {"a": [0.7, 0.8], "b": []}])["a"]
    assert (one["captions"], one["n"], one["images"]) == (2, 3, 0.5)
    assert one["low"] < 2 / 3 < one["high"]


def test_pictures_that_were_never_seen_are_compared_caption_by_caption():
    memorized = [{1: v} for v in (0.9, 0.7, 0.5, 0.3, 0.1)]
    control = [{1: v - 0.2} for v in (0.9, 0.7, 0.5, 0.3, 0.1)]
    assert gap(memorized, control, paired=True) == [
        (1, 0.2, 0.2, 0.2)
    ]  # each differs by as much, however they differ among themselves
    ((_, value, low, high),) = gap(memorized, control)
    assert value == 0.2
    assert low < 0 < high


def test_an_attacker_keeps_the_best_embedding():
    """As far as it came: a search that ends worse than it began found what it began with."""
    assert strongest({"caption": {"0": [0.8, 1.0], "10": [0.5], "50": [0.17]}}) == {
        0: 0.9,
        10: 0.9,
        50: 0.9,
    }
