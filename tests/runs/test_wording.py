"""Counts and lists in plain English."""

from findnemo.runs.wording import count, word_list


def test_only_one_is_in_the_singular():
    assert [count(amount, "copy") for amount in (0, 1, 2)] == ["0 copies", "1 copy", "2 copies"]
    assert count(1_000_000, "caption") == "1,000,000 captions"


def test_a_list_has_one_and_before_its_last_part():
    parts = ["words", "tokens", "seeds", "steps"]
    assert word_list(parts[:2]) == "words and tokens"
    assert word_list(parts) == "words, tokens, seeds and steps"
