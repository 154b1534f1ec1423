"""Sentences on attempts and attacks, by cases counted by hand.

Summaries of whole runs in sentences: tests/robustness/test_summaries.py.
"""

from __future__ import annotations

from findnemo.report.sentences import EARLIER, WEIGHTS, of_caption, sentences
from findnemo.runs.evidence import verdict

CELL = {"captions": 0, "n": 4, "low": 0.0, "high": 0.49}


def test_of_one_caption_attempts_are_counted_apart_from_what_was_given_the_picture():
    """Of four attempts without the picture two work, of these one gives a copy."""
    found = {
        "neurons off": {
            "seeds: fresh": verdict(0.9, 0.95),
            "words: capitals": verdict(0.2, 0.9),
            "words: synonyms": verdict(0.2, 0.3),
            "script: Greek": verdict(0.1, 0.1),
            "image to image: 0.5": verdict(0.99, 0.99),
            "optimized embedding": verdict(0.8, 0.9),
        },
        "hardened": {"optimized embedding": verdict(0.1, 0.2)},
    }
    assert of_caption(found) == [
        "With neurons off: 1 of 2 attempts that work on the untouched model give a copy, 2 more tell"
        " nothing; the attack: it gives a copy: 0.80.",
        "After hardening: the attack tells nothing: on the untouched model it gives no copy either:"
        " 0.20.",
    ]


def test_the_attempt_with_the_largest_share_is_named_and_the_last_sentence_is_on_weights():
    """3 of 4 against 2 of 2: the share decides, not the number."""
    told = {"n": 4, "beyond": 0, "silent": [], "low": 0.0, "high": 1.0}
    many = CELL | {"told": told | {"works": 4, "back": 3}}
    all_of_few = CELL | {"told": told | {"works": 2, "back": 2, "silent": [0.2, 0.3]}}
    table = {"seeds: fresh": {"neurons off": many}, "words: capitals": {"neurons off": all_of_few}}
    first, *_, last = sentences({"table": table}, None)
    assert "2 of 2 attempts" in first
    assert "the most has 'words: capitals', of 2 of the 2 captions" in first
    assert last == WEIGHTS


def test_what_has_no_positive_control_tells_nothing():
    table = {"seeds: fresh": {"neurons off": CELL}}
    assert sentences({"table": table}, None) == [EARLIER, WEIGHTS]
    assert sentences({"table": {}}, {"curves": {"neurons off": []}}) == []
