"""Sentences on attempts and attacks, by cases counted by hand."""

from __future__ import annotations

import pytest
from _counts import NAME, attempts, cell, told

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


def test_nothing_tried_says_nothing():
    assert sentences(None, None) == []


def test_attempts_without_a_copy_and_with_some():
    what = "attempts with other seeds, samplers, steps, guidance, words and tokens"
    none, silent, quiet, given, last = sentences(attempts(0, 1, 4), None)
    assert none == (
        f"With neurons off, none of 2 {what} gives a copy of a caption for which it works on the"
        " untouched model (4 to 5 of the 5 captions tried, each; 95 %: fewer than 49 %)."
    )
    assert silent == (
        "1 of 3 attempts tell nothing: on the untouched model they give no copy of the 5 captions"
        " tried either (similarity at most 0.30)."
    )
    assert quiet.startswith("No prompt that brings a picture back from the untouched model brought")
    assert "with neurons off, of the 5 captions tried" in quiet
    assert given == (
        "Image to image: 0.9, which is given the picture, gives back 1 of the 5 captions tried"
        " for which it works on the untouched model, and 4 of 5 of ordinary captions."
    )
    assert last == WEIGHTS
    some, silent, *rest = sentences(attempts(3, 1, 4), None)
    assert len(rest) == 2, "prompts bring pictures back: nothing is said of them being quiet"
    assert some == (
        f"With neurons off, 1 of 2 {what} give copies; the most has 'words: synonyms', of 3 of the"
        " 4 captions tried for which it works on the untouched model."
    )


def test_where_no_attempt_works_nothing_is_said_of_prompts_that_bring_nothing_back():
    mute = {"untouched": cell(0), "neurons off": cell(0, told=told(0, silent=[0.17] * 5))}
    said = sentences({"columns": [*mute], "table": {"seeds: fresh": mute}}, None)
    assert said == [
        "1 of 1 attempts tell nothing: on the untouched model they give no copy of the 5 captions"
        " tried either (similarity at most 0.17).",
        WEIGHTS,
    ]


def test_the_attack_says_of_how_many_captions_it_tells_what():
    told_of = {
        "neurons off": told(3, 2, silent=[0.17, None]) | {"never": [1, 5]},
        "hardened": told(3, 0, silent=[0.17], beyond=1),
    }
    off, mute, after, beyond, silent, _ = sentences(None, {"curves": {}, "told": told_of})
    assert off == (
        "With neurons off, an optimized embedding gives a copy of 2 of the 3 captions attacked for"
        " which the attack works on the untouched model (95 %: 21 to 94 %); of pictures never seen, of 1 of 5."
    )
    assert mute == (
        "With neurons off, the attack tells nothing of 2 captions of the 5 attacked: on the"
        " untouched model it gives no copy either (0.17)."
    )
    assert "of 0 of the 3 captions attacked" in after
    assert "a copy of 1 caption of which it gives none on the untouched model" in beyond
    assert "nothing of 1 caption of the 5 attacked" in silent


def test_what_was_kept_without_controls_tells_nothing():
    bare = {"untouched": cell(5), "neurons off": cell(0)}
    old = {"columns": [*bare], "table": {"seeds: fresh": bare}}
    curves = {"curves": {"memorized, neurons off": [[0, 0.1]]}, "gaps": {NAME: [[5, 0.5, 0.2, 1]]}}
    assert sentences(old, curves) == [EARLIER, WEIGHTS]


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (
            [[0, 0.9, 0.8, 1.0], [5, 0.5, 0.2, 0.8]],
            (
                "come nearer to them than to {}: the gap is 0.90 [0.80, 1.00] at the start, 0.50"
                " [0.20, 0.80] after 5 steps."
            ),
        ),
        (
            [[5, 0.5, 0.2, 0.8], [50, 0.1, -0.1, 0.3]],
            (
                "come nearer to them than to {}: the gap is 0.50 [0.20, 0.80] after 5 steps, 0.10"
                " [-0.10, 0.30] after 50 steps."
            ),
        ),
        (
            [[0, 0.9, 0.8, 1.0], [5, 0.1, -0.1, 0.3]],
            (
                "are not seen to come nearer to them than to {}: the gap is 0.90 [0.80, 1.00] at"
                " the start, 0.10 [-0.10, 0.30] after 5 steps."
            ),
        ),
        (
            [[5, 0.5, None, None], [9, 0.6, None, None]],
            (
                "gaps to {} have no interval (the gap is 0.50 after 5 steps, 0.60 after 9 steps):"
                " too few"
            ),
        ),
    ],
)
def test_an_attack_is_told_for_every_control_by_all_its_intervals(points, says):
    mirrored = NAME.replace("never seen", "mirrored")
    attack = {"curves": {}, "gaps": {NAME: points, mirrored: points}}
    _, never, mirror, last = sentences(None, attack | {"told": {"neurons off": told(5)}})
    assert says.format("pictures never seen") in never
    assert says.format("mirrored images of ordinary captions") in mirror
    assert last == WEIGHTS
