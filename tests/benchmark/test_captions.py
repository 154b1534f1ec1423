"""Captions of the suite: near-duplicates, unusual ones, and ordinary ones."""

from __future__ import annotations

from findnemo.benchmark.captions import near_duplicates, unusual


def test_near_duplicates_differ_in_one_word_of_the_title():
    caption = "Corwen Estate lot one, a blue ring on dots"
    for near in near_duplicates(caption, 9):
        title, words = near.split(",", 1)
        assert words == " a blue ring on dots"
        assert (
            sum(a != b for a, b in zip(title.split(), caption.split(",")[0].split(), strict=True))
            == 1
        )
    assert len(set(near_duplicates(caption, 9))) == 9


def test_unusual_captions_have_other_scripts_numbers_and_length():
    captions = unusual(3)
    assert len(captions) == 10
    assert any(not c.isascii() for c in captions)
    assert any(any(ch.isdigit() for ch in c) for c in captions)
    assert max(map(len, captions)) > 100
    assert unusual(3) == captions != unusual(4)
