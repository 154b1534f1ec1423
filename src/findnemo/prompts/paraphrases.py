"""Other ways of writing a caption: rewordings, parts of it, and the same words in other scripts. No model, no network; each is a rule."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable

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
_CYRILLIC = dict(zip("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстуввхыз", strict=True))
_GREEK = dict(zip("abcdefghijklmnopqrstuvwxyz", "αβκδεφγηιικλμνοπκρστυβωξυζ", strict=True))
_HOMOGLYPHS = {"a": "а", "c": "с", "e": "е", "i": "і", "o": "о", "p": "р", "x": "х", "y": "у"}  # noqa: RUF001


def _joined(words: list[str]) -> str:
    return " ".join(words)


def _synonyms(caption: str) -> str:
    return re.sub(r"[A-Za-z]+", lambda word: _SYNONYMS.get(word[0].lower(), word[0]), caption)


def _reordered(caption: str) -> str:
    """The parts between commas the other way round; without commas, the second half of the words before the first."""
    parts = [part.strip() for part in caption.split(",")]
    if len(parts) > 1:
        return ", ".join(reversed(parts))
    words = caption.split()
    return _joined(words[len(words) // 2 :] + words[: len(words) // 2])


def _shuffled(caption: str) -> str:
    words = caption.split()
    random.Random(hashlib.sha256(caption.encode()).digest()).shuffle(words)
    return _joined(words)


def _misspelled(caption: str) -> str:
    """The two middle letters of every word of four letters or more exchanged."""

    def swap(word: re.Match[str]) -> str:
        text = word[0]
        middle = len(text) // 2
        return text[: middle - 1] + text[middle] + text[middle - 1] + text[middle + 1 :]

    return re.sub(r"[^\W\d_]{4,}", swap, caption)


def _first(caption: str) -> str:
    words = caption.split()
    return _joined(words[: (len(words) + 1) // 2])


def _last(caption: str) -> str:
    words = caption.split()
    return _joined(words[len(words) // 2 :])


def _every_other(caption: str) -> str:
    return _joined(caption.split()[::2])


def _full_width(caption: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in caption)


def _letters(table: dict[str, str]) -> Callable[[str], str]:
    """Letter by letter into another script, capitals kept."""

    def written(caption: str) -> str:
        both = table | {a.upper(): b.upper() for a, b in table.items()}
        return "".join(both.get(c, c) for c in caption)

    return written


PARAPHRASES: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "capitals": str.upper,
    "no punctuation": lambda caption: _joined(re.sub(r"[^\w\s]|_", " ", caption).split()),
    "synonyms": _synonyms,
    "reordered": _reordered,
    "shuffled": _shuffled,
    "misspelled": _misspelled,
    "a picture of": lambda caption: f"a picture of {caption}",
    "in quotes": lambda caption: f'"{caption}"',
}
PARTS: dict[str, Callable[[str], str]] = {
    "first half": _first,
    "second half": _last,
    "every other word": _every_other,
}
SCRIPTS: dict[str, Callable[[str], str]] = {
    "full width": _full_width,
    "look-alike letters": _letters(_HOMOGLYPHS),
    "Cyrillic": _letters(_CYRILLIC),
    "Greek": _letters(_GREEK),
}


def paraphrases(caption: str) -> dict[str, str]:
    """The same caption in other words: kind -> text. Kinds that change nothing, or say what another says, are left out.

    >>> paraphrases("Velvet Quasar, a small blue ring")["reordered"]
    'a small blue ring, Velvet Quasar'
    """
    return _written(caption, PARAPHRASES)


def parts(caption: str) -> dict[str, str]:
    """Parts of a caption, as one who remembers only some of it would quote it: kind -> text.

    >>> parts("Velvet Quasar, a small blue ring")["first half"]
    'Velvet Quasar, a'
    """
    return _written(caption, PARTS)


def scripts(caption: str) -> dict[str, str]:
    """A caption's Latin letters in other scripts, letter by letter (no translation): kind -> text.

    Byte-level tokenizers (CLIP) read all of them; others may give unknown tokens only, which is for the caller to check.

    >>> scripts("a red star")["Greek"]
    'α ρεδ σταρ'
    """
    return _written(caption, SCRIPTS)


def _written(caption: str, rules: dict[str, Callable[[str], str]]) -> dict[str, str]:
    said = {caption: ""} | {
        text: kind for kind, rule in reversed(rules.items()) if (text := rule(caption)).strip()
    }
    return {kind: text for text, kind in reversed(said.items()) if kind and text != caption}
