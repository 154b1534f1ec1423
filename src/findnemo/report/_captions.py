"""The part of the report on single captions: pictures before and after, scores, and neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findnemo.localization.trajectory import GONE
from findnemo.report import _charts as charts
from findnemo.report._pictures import LARGE, NOISE, SIDE, Wanted
from findnemo.runs import Caption, dear, neurons_of, points_of, standing, state, switched_off
from findnemo.runs.overview import BEFORE_AFTER, PRICES
from findnemo.runs.standing import WORDS, folder_of, judged, meaning, said, z_scores

PICTURES = {  # kind -> folder of the run, and the names of its files there
    "original": ("images", "original.png"),
    "quick-before": ("images", "quick-before-*.png"),
    "quick-after": ("images", "quick-after-*.png"),
    "before": ("images", "before-*.png"),
    "after": ("images", "after-*.png"),
    "noise-before": ("noise", "before-*.png"),
    "noise-after": ("noise", "after-*.png"),
}
LAST = ("d_sscd_after", "a_clip_after")  # rows of a card that stand behind the others


def files_of(path: Path, caption: Caption, large: bool = False) -> dict[str, list[Wanted]]:
    """The pictures that a run holds of a caption, by kind."""
    side = LARGE if large else SIDE
    root = path / folder_of(caption)
    return {
        kind: [
            Wanted(file, NOISE if folder == "noise" else side)
            for file in sorted((root / folder / caption.slug).glob(names))
        ]
        for kind, (folder, names) in PICTURES.items()
    }


def example(path: Path, captions: Sequence[Caption]) -> Caption | None:
    """The first caption whose memory is gone and that has pictures, else the first memorized one
    with pictures: no choice by looks.
    """
    pictured = [
        c
        for c in captions
        if standing(c) not in ("suspected", "open", "not memorized")
        and any(files_of(path, c)[kind] for kind in ("after", "quick-after"))
    ]
    return next((c for c in pictured if standing(c) == "gone"), pictured[0] if pictured else None)


def wanted_pictures(path: Path, cards: Sequence[Caption], first: Caption | None) -> list[Wanted]:
    """All pictures of the page, those of the example `first` before those of the cards."""
    large = files_of(path, first, large=True) if first else {}
    of_first = [w for kind, some in large.items() if not kind.startswith("noise") for w in some]
    return of_first + [w for c in cards for some in files_of(path, c).values() for w in some]


def card(
    path: Path,
    caption: Caption,
    numbers: Mapping[str, int],
    pictures: Mapping[Wanted, str],
    large: bool = False,
) -> dict[str, Any]:
    """What is shown of a caption.

    `numbers`: layer -> its number; `pictures`: data URIs of what fits into the page.
    """
    files = files_of(path, caption, large)
    word = WORDS[standing(caption)]
    return {
        "caption": caption,
        "standing": standing(caption),
        "word": word,
        "badge": said(caption) if state(caption) == "suspected" else word.beside,
        "meaning": meaning(caption),
        "off": bool(switched_off(caption)),
        "reasons": reasons(caption),
        "scores": _scores(caption),
        "neurons": neurons(caption, numbers),
        "seen": judged(caption),
        "points": points_of(caption),
        "prices": _prices(caption),
        "pictures": {
            kind: [pictures[w] for w in some if w in pictures] for kind, some in files.items()
        },
        "left_out": any(w not in pictures for some in files.values() for w in some),
    }


def reasons(caption: Caption) -> list[str]:
    """What failed on a caption, and why."""
    return [f"{stage}: {reason}" for stage, reason in caption.failed.items()]


def _prices(caption: Caption) -> dict[str, Any] | None:
    """A chart of the price list of a memory, where there is something to choose (`runs.dear`)."""
    if not dear(caption):
        return None
    _, likeness, change = PRICES
    points = points_of(caption)
    before = (caption.localized and caption.localized.copy_before) or 1.0
    left = [[0, before], *([p.neurons, p.left] for p in points)]
    changed = [[0, 0.0], *([p.neurons, p.change] for p in points if p.change is not None)]
    return charts.curves({"curves": {likeness: left, change: changed}, "level": GONE})


def _scores(caption: Caption) -> list[tuple[Any, ...]]:
    """What was measured of a caption, with its values before and after."""
    order = sorted(BEFORE_AFTER, key=lambda m: LAST.index(m.after) if m.after in LAST else -1)
    pairs = [(measured, measured.of(caption)) for measured in order]
    return [(measured, *pair) for measured, pair in pairs if pair is not None]


def neurons(
    caption: Caption, numbers: Mapping[str, int]
) -> list[tuple[str | int, int, float | None]]:
    """Layer, index and z-score of the neurons found for a caption, the most unusual first."""
    z = z_scores(caption)
    rows = [(numbers.get(name, name), i, z.get(f"{name}:{i}")) for name, i in neurons_of(caption)]
    return sorted(rows, key=lambda row: -abs(row[2] or 0.0))
