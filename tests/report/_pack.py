"""A run with an evidence pack, and the rows and figures of a pack."""

from __future__ import annotations

import pytest
from _runs import LAYERS, Told, make_run, memorized, under

FIRST, SECOND, MID = LAYERS


SETTINGS = {
    "model": "0123456789abcdef",
    "dtype": "float32",
    "image_settings": {"steps": 50, "guidance": 7.0, "seed": 0},
}


ATTACK = {
    **{"x": "steps", "y": "similarity", "n": 3, "known": 3},
    "curves": {
        "memorized, neurons off": [[0, 0.1], [50, 0.5]],
        "memorized, untouched": [[0, 0.3], [50, 0.9]],
    },
    "bands": {"memorized, neurons off": [[0, 0.0, 0.2], [50, 0.4, 0.6]]},
    "gaps": {"neurons off: memorized less never seen": [[0, 0.0, -0.2, 0.2], [50, 0.25, 0.1, 0.4]]},
}


CELL = {"images": 0.5, "captions": 1, "n": 2, "low": 0.09, "high": 0.91}


HALF = {"n": 2, "works": 2, "back": 1, "beyond": 0, "silent": [], "low": 0.09, "high": 0.91}


MUTE = HALF | {"works": 0, "back": 0, "silent": [0.17, 0.2], "low": None, "high": None}


ATTEMPTS = {
    "columns": ["untouched", "neurons off"],
    "table": {
        "seeds: fresh": {"untouched": CELL | {"captions": 2}, "neurons off": CELL | {"told": HALF}},
        "script: Greek": {
            "untouched": CELL | {"captions": 0},
            "neurons off": CELL | {"captions": 0, "told": MUTE},
        },
        "image to image: 0.5": {
            "untouched": CELL | {"captions": 2},
            "neurons off": CELL | {"captions": 2, "told": HALF | {"back": 2}},
        },
    },
}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The score interval by its formula."""
    z = 1.959963984540054
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * (hits * (n - hits) / n + z * z / 4) ** 0.5
    return middle - half, middle + half


def attacked(text: str, off: float, untouched: float, known: bool = True) -> Told:
    """A memorized caption under attack, with similarities at the last of two steps."""
    told = memorized(text, {FIRST: [1]}, sscd_orig_before=0.9, sscd_orig_after=0.2)
    results = {
        f"attack:{state}": {
            "basis": "b",
            "known": known,
            "curves": {"caption": {"0": [0.0, 0.1], "50": [0.1]}, "random": {"50": [near, near]}},
        }
        for state, near in (("neurons off", off), ("untouched", untouched))
    }
    return Told(text, told.results | results, "VM")


def told() -> list[Told]:
    """Three attacked memories that are gone, one out of reach, one still copied, one suspected,
    one that failed, two ordinary ones.
    """
    suspect = memorized("suspect", {MID: [3]}, type=None, copies_before=0.25, copies_after=0.25)
    return [
        attacked("gone one", 0.8, 0.9),
        attacked("gone two", 0.2, 0.9),
        attacked("gone three", 0.1, 0.6, known=False),
        memorized("beyond reach", {MID: [30]}, reached=False),
        memorized("still copied", {SECOND: [2]}, type="TM", copies_after=0.5),
        suspect,
        Told("it failed", {"detect": "the noise prediction holds NaN in /home/me/models"}),
        under("an ordinary one"),
        under("another", 0.3),
    ]


def made(path, captions=None, **meta):
    bases = {"attack:neurons off": "b", "attack:untouched": "b"}
    about = {"attack": ATTACK, "attempts": ATTEMPTS, "bases": bases}
    return make_run(path, told() if captions is None else captions, **(about | meta))


def row_of(pack, name: str) -> dict:
    return next(row for row in pack["attacks"] if row["attack"].startswith(name))


def figure_of(row: dict, name: str) -> dict:
    (found,) = [one for one in row["figures"] if one["name"] == name]
    return found


def is_share(row: dict, name: str, hits: int, n: int) -> None:
    """A figure is this share, with Wilson's interval."""
    one = figure_of(row, name)
    low, high = wilson(hits, n)
    assert (one["hits"], one["n"], one["interval"]) == (hits, n, "Wilson")
    assert [one["value"], one["low"], one["high"]] == pytest.approx(
        [hits / n, max(low, 0), min(high, 1)], abs=6e-5
    )
