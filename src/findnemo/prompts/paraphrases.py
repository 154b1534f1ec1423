"""Other ways to write a caption: rewordings, parts of it, and other scripts.

Each is a rule; there is no model and no network.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable

Rule = Callable[[str], str]

_SYNONYMS = {
    "a": "one",
    "big": "large",
    "dark": "dim",
    "image": "picture",
    "large": "big",
    "little": "small",
    "over": "above",
    "photo": "photograph",
    "photograph": "photo",
    "picture": "image",
    "small": "little",
    "the": "this",
    "under": "below",
    "with": "and",
}
_LATIN = "abcdefghijklmnopqrstuvwxyz"
_CYRILLIC = "абцдефгхийклмнопярстуввхыз"
_GREEK = "αβκδεφγηιικλμνοπκρστυβωξυζ"


def _synonyms(caption: str) -> str:
    return re.sub(r"[A-Za-z]+", lambda word: _SYNONYMS.get(word[0].lower(), word[0]), caption)


def _reordered(caption: str) -> str:
    """The parts between commas in reverse order; without commas, the second half of the words
    before the first.
    """
    parts = [part.strip() for part in caption.split(",")]
    if len(parts) > 1:
        return ", ".join(reversed(parts))
    words = caption.split()
    return " ".join(words[len(words) // 2 :] + words[: len(words) // 2])


def _shuffled(caption: str) -> str:
    words = caption.split()
    random.Random(hashlib.sha256(caption.encode()).digest()).shuffle(words)
    return " ".join(words)


def _misspelled(caption: str) -> str:
    """The two middle letters of every word of four letters or more exchanged."""

    def swap(word: re.Match[str]) -> str:
        text = word[0]
        middle = len(text) // 2
        return text[: middle - 1] + text[middle] + text[middle - 1] + text[middle + 1 :]

    return re.sub(r"[^\W\d_]{4,}", swap, caption)


def _some(choose: Callable[[list[str]], list[str]]) -> Rule:
    """Some of a caption's words."""
    return lambda caption: " ".join(choose(caption.split()))


def _letters(latin: str, others: str) -> Rule:
    """Letter by letter into another script; capitals stay capitals."""
    table = str.maketrans(latin + latin.upper(), others + others.upper())
    return lambda caption: caption.translate(table)


PARAPHRASES: dict[str, Rule] = {
    "lower case": str.lower,
    "capitals": str.upper,
    "no punctuation": lambda caption: " ".join(re.sub(r"[^\w\s]|_", " ", caption).split()),
    "synonyms": _synonyms,
    "reordered": _reordered,
    "shuffled": _shuffled,
    "misspelled": _misspelled,
    "a picture of": lambda caption: f"a picture of {caption}",
    "in quotes": lambda caption: f'"{caption}"',
}
PARTS: dict[str, Rule] = {  # as somebody would quote a caption from memory
    "first half": _some(lambda words: words[: (len(words) + 1) // 2]),
    "second half": _some(lambda words: words[len(words) // 2 :]),
    "every other word": _some(lambda words: words[::2]),
}
# no translation: byte-level tokenizers (CLIP) read all of them; with others, the caller must check
# for unknown tokens
SCRIPTS: dict[str, Rule] = {
    "full width": lambda caption: caption.translate({c: c + 0xFEE0 for c in range(0x21, 0x7F)}),
    "look-alike letters": _letters("aceiopxy", "асеіорху"),  # noqa: RUF001
    "Cyrillic": _letters(_LATIN, _CYRILLIC),
    "Greek": _letters(_LATIN, _GREEK),
}


def paraphrases(caption: str, rules: dict[str, Rule] = PARAPHRASES) -> dict[str, str]:
    """A caption in other words, or under other `rules` (`PARTS`, `SCRIPTS`): kind -> text.

    Kinds that change nothing, or repeat another, are left out.

    >>> paraphrases("Velvet Quasar, a small blue ring")["reordered"]
    'a small blue ring, Velvet Quasar'
    >>> paraphrases("Velvet Quasar, a small blue ring", PARTS)["first half"]
    'Velvet Quasar, a'
    >>> paraphrases("a red star", SCRIPTS)["Greek"]
    'α ρεδ σταρ'
    """
    texts = {kind: rule(caption) for kind, rule in rules.items()}
    kinds = {text: kind for kind, text in reversed(texts.items()) if text.strip()}
    return {kind: text for text, kind in reversed(kinds.items()) if text != caption}
