"""The part of the report on single captions: pictures before and after, scores, and neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findnemo.localization.trajectory import GONE
from findnemo.report import _charts as charts
from findnemo.report._pictures import LARGE, NOISE, SIDE, Wanted
from findnemo.report._text import LONGEST, shown
from findnemo.runs import Caption, dear, neurons_of, points_of, state
from findnemo.runs.standing import WORDS, z_scores

MOST = 64  # neurons of a caption that are listed by name
SCORES = (  # what it is, the stage, its values before and after; whether tau is what it is held to
    ("Score, search seeds", "localize", "score_before", None, True),
    ("A seed's similarity to itself before, search seeds", "localize", None, "score_after", True),
    ("Score, fresh seeds", "verify", "score_before", "score_after", False),
    ("A seed's similarity to itself before, fresh seeds", "verify", None, "same_seed", True),
    ("Share of images that are copies", "verify", "copies_before", "copies_after", False),
    (
        "Similarity to the training image (SSCD_orig)",
        "verify",
        "sscd_orig_before",
        "sscd_orig_after",
        False,
    ),
    ("Similarity with to without the edit (SSCD_gen)", "verify", None, "sscd_gen", False),
    ("Similarity between seeds (D_SSCD)", "verify", "d_sscd_before", "d_sscd_after", False),
    ("Fit with the caption (A_CLIP)", "verify", "a_clip_before", "a_clip_after", False),
)


def files_of(path: Path, caption: Caption, large: bool = False) -> dict[str, list[Wanted]]:
    """The pictures that a run holds of a caption, by kind: original, before, after, noise-before, noise-after."""
    images, noise, side = (
        path / "images" / caption.slug,
        path / "noise" / caption.slug,
        LARGE if large else SIDE,
    )
    return {
        "original": [Wanted(file, side) for file in images.glob("original.png")],
        "before": [Wanted(file, side) for file in sorted(images.glob("before-*.png"))],
        "after": [Wanted(file, side) for file in sorted(images.glob("after-*.png"))],
        "noise-before": [Wanted(file, NOISE) for file in sorted(noise.glob("before-*.png"))],
        "noise-after": [Wanted(file, NOISE) for file in sorted(noise.glob("after-*.png"))],
    }


def example(path: Path, captions: Sequence[Caption], stand: Mapping[int, str]) -> Caption | None:
    """The first caption whose memory is gone and that has pictures, else the first memorized one with pictures: no choice by looks."""
    pictured = [
        c
        for c in captions
        if WORDS[stand[c.id]].beside and stand[c.id] != "suspected" and files_of(path, c)["after"]
    ]
    return next((c for c in pictured if stand[c.id] == "gone"), pictured[0] if pictured else None)


def wanted_pictures(
    path: Path, memorized: Sequence[Caption], first: Caption | None
) -> list[Wanted]:
    """All pictures of the page, those of the example first, then caption by caption."""
    of_first = (
        [
            w
            for kind, some in files_of(path, first, large=True).items()
            if not kind.startswith("noise")
            for w in some
        ]
        if first
        else []
    )
    return of_first + [w for c in memorized for some in files_of(path, c).values() for w in some]


def cards(
    path: Path,
    captions: Sequence[Caption],
    stand: Mapping[int, str],
    numbers: Mapping[str, int],
    pictures: Mapping[Wanted, str],
    large: bool = False,
    q: Mapping[int, float] | None = None,
) -> list[dict[str, Any]]:
    """What is shown of each caption. `numbers`: layer -> its number; `pictures`: data URIs of what fits into the page; `q`: id -> q-value."""
    return [
        {
            "id": c.id,
            "row": c.row,
            "text": c.text,
            "long": len(shown(c.text)) > LONGEST,
            "type": c.type,
            "standing": stand[c.id],
            "state": state(c),
            "told": WORDS[stand[c.id]].beside,
            "tone": WORDS[stand[c.id]].tone,
            "what": WORDS[stand[c.id]].means,
            "scores": _scores(c),
            "tau": c.detected and c.detected.tau,
            "p": c.p,
            "q": (q or {}).get(c.id),
            "neurons": _neurons(c, numbers)[:MOST],
            "count": len(neurons_of(c)),
            "more": max(len(neurons_of(c)) - MOST, 0),
            "evaluations": c.localized and c.localized.evaluations,
            "prices": _prices(c),
            "diagnosis": c.localized and c.localized.diagnosis,
            "failed": [f"{stage}: {reason}" for stage, reason in c.failed.items()],
            "pictures": {
                kind: [pictures[w] for w in some if w in pictures]
                for kind, some in files_of(path, c, large).items()
            },
            "left_out": any(
                w not in pictures for some in files_of(path, c, large).values() for w in some
            ),
            "folder": f"images/{c.slug}",
        }
        for c in captions
    ]


def _prices(caption: Caption) -> dict[str, Any] | None:
    """The price list of a memory, and a chart of it where there is something to choose (`runs.dear`)."""
    points = points_of(caption)
    if not points:
        return None
    told: dict[str, Any] = {
        "points": points,
        "chart": None,
        "tried": ", ".join(str(point.neurons) for point in points),
    }
    if dear(caption):
        left = [
            [0, (caption.localized and caption.localized.copy_before) or 1.0],
            *([p.neurons, p.left] for p in points),
        ]
        changed = [[0, 0.0], *([p.neurons, p.change] for p in points if p.change is not None)]
        told["chart"] = charts.curves(
            {
                "curves": {"likeness to the copy": left, "change of ordinary captions": changed},
                "level": GONE,
            }
        )
    return told


def _scores(caption: Caption) -> list[dict[str, Any]]:
    rows = []
    for label, stage, before, after, held in SCORES:
        values = caption.localized if stage == "localize" else caption.verified
        old, new = (name and getattr(values, name, None) for name in (before, after))
        if (before is None or old is not None) and (after is None or new is not None):
            rows.append({"label": label, "before": old, "after": new, "held": held})
    return rows


def _neurons(caption: Caption, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """The neurons found for a caption with their z-scores, the most unusual first."""
    z = z_scores(caption)
    rows = [
        {"layer": numbers.get(name, name), "index": i, "z": z.get(f"{name}:{i}")}
        for name, i in neurons_of(caption)
    ]
    return sorted(rows, key=lambda row: -abs(row["z"] or 0.0))
