"""Other ways of writing a caption: hand-written cases, and what holds for any text."""

from hypothesis import given
from hypothesis import strategies as st

from findnemo.prompts.paraphrases import PARAPHRASES, PARTS, SCRIPTS, paraphrases

CAPTION = "Velvet Quasar, a small blue ring with a photo"


def test_a_caption_in_other_words():
    assert paraphrases(CAPTION) == {
        "lower case": "velvet quasar, a small blue ring with a photo",
        "capitals": "VELVET QUASAR, A SMALL BLUE RING WITH A PHOTO",
        "no punctuation": "Velvet Quasar a small blue ring with a photo",
        "synonyms": "Velvet Quasar, one little blue ring and one photograph",
        "reordered": "a small blue ring with a photo, Velvet Quasar",
        "shuffled": paraphrases(CAPTION)["shuffled"],
        "misspelled": "Vevlet Qusaar, a samll bule rnig wtih a pohto",
        "a picture of": f"a picture of {CAPTION}",
        "in quotes": f'"{CAPTION}"',
    }
    assert sorted(paraphrases(CAPTION)["shuffled"].split()) == sorted(CAPTION.split())


def test_parts_of_a_caption():
    assert paraphrases("one two three four five", PARTS) == {
        "first half": "one two three",
        "second half": "three four five",
        "every other word": "one three five",
    }
    assert paraphrases("one", PARTS) == {}


def test_a_caption_in_other_scripts():
    written = paraphrases("Ape x", SCRIPTS)
    assert written["full width"] == "\uff21\uff50\uff45 \uff58"
    assert written["look-alike letters"] == "\u0410\u0440\u0435 \u0445"
    assert written["Greek"] == "Απε ξ"
    assert written["Cyrillic"] == "Апе \u0445"


@given(st.text(max_size=60))
def test_every_kind_is_another_text_than_the_caption_and_than_the_others(caption):
    for rules in (PARAPHRASES, PARTS, SCRIPTS):
        made = paraphrases(caption, rules)
        assert set(made) <= set(rules)
        assert caption not in made.values()
        assert len(set(made.values())) == len(made)
        assert all(text.strip() for text in made.values())
        assert made == paraphrases(caption, rules)
