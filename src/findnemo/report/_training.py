"""The part of the report on training pictures: which of them a fine-tune copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findnemo.report._pictures import SIDE, Wanted
from findnemo.report._text import NONE, at_head, interval, number, percent
from findnemo.runs import Caption, Run
from findnemo.runs.fine_tunes import inside, thumbnail
from findnemo.runs.tuned import (
    ASTRAY,
    BASE,
    CAUSES,
    CLEANED,
    STATES_TOLD,
    WAYS_TOLD,
    astray,
    begins,
    beside,
    canaries_told,
    choice,
    confirmed_told,
    copies_in,
    different,
    label,
    main_of,
    row_of,
    series,
    training_of,
    unseen_in,
    worst,
)
from findnemo.training import WAYS, share

TONES = {"copies": "bad", "does not copy": "good", "copied": "bad", ASTRAY: "bad"}


def wanted_training(run: Run) -> list[Wanted]:
    """The pictures of the section: models side by side, training pictures, and their most similar
    generations.
    """
    if (about := training_of(run)) is None:
        return []
    looks = [file for model in beside(about) for file in _looks(run.path, model)]
    return looks + [file for k in worst(about) for file in _files(run.path, about, k)]


def _looks(root: Path, model: Mapping[str, Any]) -> list[Wanted]:
    return [Wanted(inside(root, name), SIDE) for name in model["looks"]]


def _files(root: Path, about: Mapping[str, Any], number_: int) -> list[Wanted]:
    one = about["pictures"][number_]
    names = [*one["nearest"], *one.get("base", {}).get("nearest", [])]
    files = [root / thumbnail(number_), *(inside(root, name) for name in names)]
    return [Wanted(file, SIDE) for file in files]


def about_training(run: Run) -> list[tuple[str, str]]:
    """What was compared, as rows of the report's facts; empty for other runs."""
    if (about := training_of(run)) is None:
        return []
    names = ", ".join(one["name"] for one in about["variants"])
    descriptor = "a copy descriptor" if about["descriptor"] else "the correlation of pixels"
    return [
        ("Training pictures", f"{len(about['pictures']):,}, compared by {descriptor}"),
        ("Models compared", names),
        ("Images of each", f"{main_of(about)['of']:,} that ask for training pictures"),
    ]


def training(run: Run, pictures: Mapping[Wanted, str]) -> dict[str, Any] | None:
    """The contents of the section; None for a run without training pictures.

    `pictures`: data URIs of those that fit in the page.
    """
    if (about := training_of(run)) is None:
        return None
    rows = []
    for k in worst(about):
        one = about["pictures"][k]
        own, *others = [pictures.get(wanted) for wanted in _files(run.path, about, k)]
        many = len(one["nearest"])
        rows.append(
            {
                "one": one,
                "own": own,
                "beside": others[:many],
                "of_base": others[many:],
                "ways": [(WAYS_TOLD[w], *one["ways"][w]) for w in WAYS if w in one["ways"]],
                "tone": TONES.get(one["state"], ""),
                "state": STATES_TOLD.get(one["state"], one["state"]),
                "cause": CAUSES.get(one.get("cause")) if one.get("base") else None,
            }
        )
    return {
        "about": about,
        "rows": rows,
        "beside": [
            (one["name"], [pictures.get(wanted) for wanted in _looks(run.path, one)])
            for one in beside(about)
        ],
        "tones": TONES,
        "figures": _figures(about),
        "several": len(series(about)) > 1,
        "taught": {one["name"]: len(one.get("taught", {})) for one in about["variants"]},
        "labels": {one["name"]: label(about, one) for one in about["variants"]},
        "confirmed": confirmed_told(about),
        "astray": astray(about),
        "canaries": canaries_told(about),
        "clip": any("a_clip" in one for one in about["variants"]),
    }


def _figures(about: Mapping[str, Any]) -> list[dict[str, str]]:
    """The five figures of a fine-tune audit."""
    main = main_of(about)
    of = different(about)
    hits, controls = main["controls"]
    best = choice(about)
    base = row_of(about, BASE)
    bad = "bad" if main["copied"] else ""
    good = "good" if main["verdict"] == "does not copy" else ""
    by_base = f", by the base {base['nearly']:,}" if base else ""
    beside = f"95 % interval {interval(*share(hits, controls), percent)}"
    return [
        at_head(
            "training pictures copied",
            f"{main['copied']} of {of}",
            note=f"{main['nearly']:,} more nearly{by_base}",
            tone=bad or good,
        ),
        at_head(
            "images that are copies",
            percent(main["copies"] / main["of"]) if main["of"] else NONE,
            note=f"95 % interval {interval(main['low'], main['high'], percent)},"
            f" n\u00a0=\u00a0{main['of']}",
            tone=bad,
        ),
        at_head(
            "images of the base with a similarity of .7 or more",
            percent(hits / controls) if controls else NONE,
            note=f"controls; {beside}, n\u00a0=\u00a0{controls}" if controls else "no controls",
        ),
        _begins(about, of),
        at_head(
            "may be published instead",
            best["name"] if best else "none",
            note=_kept(about, best, main),
        ),
    ]


def most_copied(run: Run, captions: Sequence[Caption]) -> Sequence[Caption]:
    """Of a fine-tune that copies, the caption of the picture that is copied most; else all."""
    about = training_of(run)
    if about is None or not copies_in(about):
        return captions
    text = about["pictures"][worst(about)[0]]["caption"]
    return [c for c in captions if c.text == text] or captions


def _begins(about: Mapping[str, Any], pictures: int) -> dict[str, str]:
    """The figure on the first model that copies; of a single model, on its copies with the neurons
    off.
    """
    if len(series(about)) > 1:
        last, first = begins(about)
        note = f"{last} {unseen_in(about, last)}" if last else "the first that was looked at"
        note = note if first else "no model that was looked at copies more than the base"
        return at_head("copies begin at", first or NONE, note=note)
    cleaned = row_of(about, CLEANED)
    base = row_of(about, BASE)
    notes = [f"base {base['copied']} of {pictures}"] if base else []
    if cleaned and astray(about):
        notes.append("its images no longer follow the captions")
    copied = f"{cleaned['copied']} of {pictures}" if cleaned else NONE
    return at_head("copied with the neurons off", copied, note="; ".join(notes))


def _kept(about: Mapping[str, Any], best: Mapping[str, Any] | None, main: Mapping[str, Any]) -> str:
    if best is None:
        spoilt = ", or its images do not follow the captions" if astray(about) else ""
        return (
            "every model that was looked at copies, may copy, or shows no more of the subject than"
            f" the base{spoilt}"
        )
    base = row_of(about, BASE) or {}
    told = []
    for name, what in (("subject", "similarity to the subject"), ("a_clip", "A_CLIP")):
        if name in best:
            own, trained, of_base = (number(one.get(name), 2) for one in (best, main, base))
            told.append(f"{what} {own}; {trained} as trained, {of_base} of the base")
    return "; ".join(told)
