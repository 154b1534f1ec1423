"""The part of the report on single captions: pictures before and after, scores, and neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findnemo.localization.trajectory import GONE
from findnemo.report import _charts as charts
from findnemo.report._pictures import LARGE, NOISE, SIDE, Wanted
from findnemo.runs import Caption, dear, points_of, standing, state, switched_off
from findnemo.runs.overview import BEFORE_AFTER, PRICES
from findnemo.runs.standing import (
    WORDS,
    evaluations_of,
    folder_of,
    meaning,
    standing_text,
    verification_of,
    with_joined,
    worst_first,
    z_scores,
)
from findnemo.runs.verdict import TROUBLE
from findnemo.runs.why import why
from findnemo.runs.wording import count

PICTURES = {  # kind -> folder of the run, and the names of its files there
    "original": ("images", "original.png"),
    "quick-before": ("images", "quick-before-*.png"),
    "quick-after": ("images", "quick-after-*.png"),
    "before": ("images", "before-*.png"),
    "after": ("images", "after-*.png"),
    "noise-before": ("noise", "before-*.png"),
    "noise-after": ("noise", "after-*.png"),
}
SMALL = 48  # side of the pictures in a line, in pixels
LINES = 60  # captions over tau with an open line; more are folded
LAST = ("d_sscd_after", "a_clip_after")  # rows at the end of a card


def files_of(path: Path, caption: Caption, large: bool = False) -> dict[str, list[Wanted]]:
    """The pictures that a run has for a caption, by kind."""
    side = LARGE if large else SIDE
    root = path / folder_of(caption)
    return {
        kind: [
            Wanted(file, NOISE if folder == "noise" else side)
            for file in sorted((root / folder / caption.slug).glob(names))
        ]
        for kind, (folder, names) in PICTURES.items()
    }


def example(path: Path, captions: Sequence[Caption], is_gone: bool) -> Caption | None:
    """The memorized caption for the head of the page: the first that is gone, or with `is_gone`
    false the worst that is not.

    The choice does not depend on how pictures look. None without pictures.
    """
    pictured = [c for c in captions if state(c) == "memorized" and _pair(files_of(path, c))]
    wanted = [c for c in worst_first(pictured) if (standing(c) == "gone") == is_gone]
    return next(iter(wanted or pictured), None)


def _pair(files: Mapping[str, list[Wanted]]) -> list[Wanted]:
    """A picture before and one after, of the same seed, in all steps if there are such."""
    for kind in ("", "quick-"):
        before = {one.file.name.rpartition("-")[2]: one for one in files[f"{kind}before"]}
        for after in files[f"{kind}after"]:
            if (pair := before.get(after.file.name.rpartition("-")[2])) is not None:
                return [pair, after]
    return []


def strip(path: Path, caption: Caption) -> list[tuple[str, Wanted]]:
    """The pictures at the head of the page, each with a label: the training image if known, one
    before, and one of the same seed with the neurons off.
    """
    files = files_of(path, caption, large=True)
    off = "neurons off" if switched_off(caption) or caption.together else "neurons off in this test"
    pair = zip(("before", off), _pair(files), strict=False)
    return [*(("training image", one) for one in files["original"]), *pair]


def thumbs(path: Path, caption: Caption) -> list[Wanted]:
    """The two small pictures in the line of a caption, before and after."""
    return [Wanted(one.file, SMALL) for one in _pair(files_of(path, caption))]


def wanted_pictures(path: Path, cards: Sequence[Caption], first: Caption | None) -> list[Wanted]:
    """All pictures of the page: at its head, in lines, then on cards."""
    of_first = [one for _, one in strip(path, first)] if first else []
    of_lines = [one for c in cards[:LINES] for one in thumbs(path, c)]
    return [
        *of_first,
        *of_lines,
        *(w for c in cards for some in files_of(path, c).values() for w in some),
    ]


def ordered(captions: Sequence[Caption]) -> list[Caption]:
    """Captions in the order of the page: the worst first; those not memorized by their score."""
    by_score = sorted(captions, key=lambda c: -(c.score or 0.0) if _is_under(c) else c.id)
    return worst_first(by_score)


def _is_under(caption: Caption) -> bool:
    return standing(caption) in ("open", "not memorized")


def has_card(caption: Caption) -> bool:
    """Whether a caption has more to show than its line."""
    return state(caption) in ("memorized", "suspected")


def folded(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Lines in groups, each with the text of its fold: the first without one, then those over tau
    beyond the limit, then those that are not memorized.
    """
    over = [line for line in lines if not _is_under(line["caption"])]
    under = [line for line in lines if _is_under(line["caption"])]
    open_ = sum(line["standing"] == "open" for line in under)
    said = f"{count(len(under) - open_, 'caption')} not memorized"
    said += f", {open_} not looked at yet" if open_ else ""
    groups = [
        ("", over[:LINES]),
        (f"{count(len(over[LINES:]), 'more caption')} over tau", over[LINES:]),
        (said, under),
    ]
    return [(said, group) for said, group in groups if group]


def line(path: Path, caption: Caption, pictures: Mapping[Wanted, str]) -> dict[str, Any]:
    """The line of a caption, with its keys for sorting."""
    word = standing(caption)
    seen = verification_of(caption)
    return {
        "caption": caption,
        "standing": word,
        "said": standing_text(caption),
        "tone": WORDS[word].tone,
        "score": caption.score,
        "off": len(switched_off(caption)),
        "before": seen and seen.largest_before,
        "after": seen and seen.largest_after,
        "reasons": [f"{stage}: {reason}" for stage, reason in caption.failed.items()],
        "thumbs": [pictures[one] for one in thumbs(path, caption) if one in pictures],
    }


def is_open(caption: Caption) -> bool:
    """Whether a caption is shown open: a search for it ended in trouble, or it is only suspected
    and a few of its images are copies.
    """
    seen = verification_of(caption)
    if standing(caption) in TROUBLE:
        return caption.localized is not None
    return state(caption) == "suspected" and bool(seen and seen.copies_before)


def card(
    path: Path, caption: Caption, numbers: Mapping[str, int], pictures: Mapping[Wanted, str]
) -> dict[str, Any]:
    """The card of a caption, behind its line.

    `numbers`: layer -> its number. `pictures`: data URIs of those that fit in the page.
    """
    files = files_of(path, caption)
    return line(path, caption, pictures) | {
        "is_open": is_open(caption),
        "meaning": meaning(caption),
        "why": why(caption),
        "evaluations": evaluations_of(caption),
        "scores": _scores(caption),
        "neurons": neurons(caption, numbers),
        "seen": verification_of(caption),
        "points": points_of(caption),
        "prices": _prices(caption),
        "pictures": {
            kind: [pictures[w] for w in some if w in pictures] for kind, some in files.items()
        },
        "left_out": any(w not in pictures for some in files.values() for w in some),
    }


def _prices(caption: Caption) -> dict[str, Any] | None:
    """A chart of the price list of a memory, if there is a choice to make (`runs.dear`)."""
    if not dear(caption):
        return None
    _, likeness, change = PRICES
    points = points_of(caption)
    before = (caption.localized and caption.localized.copy_before) or 1.0
    left = [[0, before], *([p.neurons, p.left] for p in points)]
    changed = [[0, 0.0], *([p.neurons, p.change] for p in points if p.change is not None)]
    return charts.curves({"curves": {likeness: left, change: changed}, "level": GONE})


def _scores(caption: Caption) -> list[tuple[Any, ...]]:
    """Measured values of a caption, before and after."""
    order = sorted(BEFORE_AFTER, key=lambda m: LAST.index(m.after) if m.after in LAST else -1)
    pairs = [(measured, measured.of(caption)) for measured in order]
    return [(measured, *pair) for measured, pair in pairs if pair is not None]


def neurons(
    caption: Caption, numbers: Mapping[str, int]
) -> list[tuple[str | int, int, float | None]]:
    """Layer, index and z-score of the neurons that are off for a caption, the most unusual first."""
    z = z_scores(caption)
    rows = [(numbers.get(name, name), i, z.get(f"{name}:{i}")) for name, i in with_joined(caption)]
    return sorted(rows, key=lambda row: -abs(row[2] or 0.0))
