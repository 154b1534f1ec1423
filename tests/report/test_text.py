"""Figures and text of unknown origin, as the report writes them."""

from __future__ import annotations

from findnemo.report._text import clipped, count, number, percent, printable


def test_words():
    assert (count(1, "memory"), count(2, "memory")) == ("1 memory", "2 memories")
    assert (number(-0.0001), number(0.12345), number(None)) == ("0.000", "0.123", "\u2013")
    assert (percent(1), percent(0.004)) == ("100 %", "0.4 %")
    assert printable("a\ud800b\x00c\n\u202e") == "a\ufffdb\ufffdc\n\u202e"
    assert clipped("abc", 3) == "abc"
