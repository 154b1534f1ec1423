"""What the summary of a fine-tune audit says: which models copy, from where on, and which of them
may be taken.

A summary is the run's value `training`, made by `fine_tunes.summary`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from findnemo.runs.results import Training, damaged, decoded
from findnemo.runs.standing import WORDS, standing
from findnemo.runs.store import Caption, Run
from findnemo.runs.wording import count, joined
from findnemo.training import AS_BASE, STATES, share

BASE = "base"
CLEANED = "neurons off"
SHOWN = 24  # training pictures in the grid
NAMED = 5  # copied pictures that a sentence names
LITTLE = 0.01  # similarity to the subject over the base's that shows nothing of it
KEPT = 0.5  # share of the fit to the captions that a usable repair keeps
A_CLIP = "fit to the captions (A_CLIP)"
ASTRAY = "off the captions"  # in tables, of a repair whose images do not follow the captions
FREE = ("does not copy", AS_BASE)  # verdicts on models that may be taken
CAUSES = {  # why the main model copies a picture
    "training": "the training taught it",
    "base": "the base copies it about as often",
    "chance": "this may be chance, as few images copy it, and the base copies other pictures as well;"
    " --images N with more of them tells",
}


def row_of(about: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The variant of a name in a `summary`; None if there is none."""
    found: dict[str, Any] | None = next((v for v in about["variants"] if v["name"] == name), None)
    return found


def tuned(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tuned models of a `summary`, in order: without the base, and without that with its
    neurons off.
    """
    return [v for v in about["variants"] if v["name"] not in (BASE, CLEANED)]


def series(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tuned models of a `summary` to compare, in order: all checkpoints at the strength of the
    main model, or all strengths of a single checkpoint.
    """
    models = tuned(about)
    if len({v["checkpoint"] for v in models}) < 2:
        return models
    strength = next(v["strength"] for v in models if v["name"] == about["main"])
    return [v for v in models if v["strength"] == strength]


def begins(about: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Names of the last model before copies begin, and of the first that copies."""
    last = None
    for variant in series(about):
        if variant["verdict"] == "copies":
            return last, variant["name"]
        last = variant["name"]
    return last, None


def copies_in(about: Mapping[str, Any]) -> bool:
    """Whether the main model copies a training picture."""
    main = row_of(about, about["main"])
    return main is not None and main["verdict"] == "copies"


def astray(about: Mapping[str, Any]) -> bool:
    """Whether images of the model with its neurons off no longer follow the captions.

    The fit to the captions (A_CLIP) must have lost more than half of its way down to the fit of the
    tuned model's images to captions of other subjects. The way begins at the base or the tuned
    model, whichever fits worse: a repair need not follow captions better than they do. False if it
    was not measured, or if that way is no way: a CLIP that does not tell captions apart tells
    nothing of the repair.
    """
    cleaned, limit = row_of(about, CLEANED) or {}, least_fit(about)
    return limit is not None and "a_clip" in cleaned and bool(cleaned["a_clip"] < limit)


def least_fit(about: Mapping[str, Any]) -> float | None:
    """The fit to the captions (A_CLIP) that the model with its neurons off must keep (`astray`).

    None if it was not measured, or if a CLIP tells captions apart so little that the fit tells
    nothing.
    """
    base, main = (row_of(about, name) or {} for name in (BASE, about["main"]))
    if "a_clip" not in base or "a_clip" not in main:
        return None
    floor: float = main.get("a_clip_other", 0.0)
    whole = min(base["a_clip"], main["a_clip"]) - floor
    return floor + KEPT * whole if whole > 0 else None


def is_forgotten(about: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a model shows hardly more of the subject than the base does: .01 at most."""
    base = row_of(about, BASE) or {}
    if "subject" not in row or "subject" not in base:
        return False
    return bool(round(row["subject"] - base["subject"], 2) <= LITTLE)


def is_beside_base(about: Mapping[str, Any]) -> bool:
    """Whether the models of a `summary` were compared with the base, picture by picture."""
    return any(row["name"] == BASE for row in about["variants"]) and any(
        "taught" in row for row in about["variants"]
    )


def taught(row: Mapping[str, Any]) -> str:
    """How many pictures a model was taught; nothing for the base itself.

    >>> taught({"name": "LoRA", "taught": {"a.png": 2}}), taught({"name": "base", "taught": {}})
    ('1', '')
    """
    return "" if row["name"] == BASE else str(len(row.get("taught", {})))


def copied_by(about: Mapping[str, Any], number: int) -> list[str]:
    """Names of the models that copy a training picture, or one that is equal to it, each with the
    number of images that do, and whether the model was taught the picture.
    """
    pictures = about["pictures"]
    group = pictures[number]["group"]
    equal = [one["file"] for one in pictures if one["group"] == group]
    found = []
    for row in about["variants"]:
        if copies := sum(row.get("copies_of", {}).get(file, 0) for file in equal):
            is_taught = any(file in row.get("taught", {}) for file in equal)
            found.append(f"{row['name']} ({copies}{', taught' if is_taught else ''})")
    return found


def label(about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a table calls a model: its verdict, or ASTRAY; nothing for the base itself."""
    if row["name"] == BASE:
        return ""
    return ASTRAY if row["name"] == CLEANED and astray(about) else str(row["verdict"])


def variant_told(about: Mapping[str, Any], name: str) -> str:
    """What the audit says of one of its models, for somebody who takes it.

    >>> row = {"name": "LoRA x 0.4", "verdict": "as the base", "copied": 1, "copies": 0, "of": 80}
    >>> row["copies_of"] = {"a.png": 2}
    >>> said = variant_told({"variants": [row], "pictures": [{"group": 0}]}, "LoRA x 0.4")
    >>> said[:74]
    'what the audit says of LoRA x 0.4: as the base (it copies 1 of 1 training '
    >>> said[74:]
    'picture (a.png), by any prompt; 0 of 80 images of their captions are copies)'
    """
    row = row_of(about, name)
    assert row is not None
    told = f"it copies {row['copied']} of {count(different(about), 'training picture')}"
    told += f"{_named(list(row.get('copies_of', {})))}, by any prompt; {row['copies']} of"
    told += f" {count(row['of'], 'image')} of their captions are copies"
    advice = "" if row["verdict"] in FREE else "; do not release it"
    return f"what the audit says of {name}: {label(about, row)} ({told}){advice}"


def choice(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model that shows most of the subject, of those that do not copy or only as the base does;
    None if there is none.

    The base is no choice: it shows least of the subject. Nor is a model whose images no longer
    follow the captions, or do not tell whether it copies.
    """
    names = (BASE, CLEANED) if astray(about) else (BASE,)
    fair = [v for v in about["variants"] if v["name"] not in names and v["verdict"] in FREE]
    return max((v for v in fair if "subject" in v), key=lambda v: v["subject"], default=None)


def beside(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models whose images of the same noise show what is left of the subject: the base, the one
    that may be taken, the main one, and that with its neurons off. Only those with `looks`, paths
    of an image of each of a few captions.
    """
    best = choice(about)
    names = (BASE, best and best["name"], about["main"], CLEANED)
    rows = (row_of(about, name) for name in dict.fromkeys(names) if name)
    return [row for row in rows if row is not None and row.get("looks")]


def different(about: Mapping[str, Any]) -> int:
    """The number of different training pictures; equal pictures count once."""
    return len({one["group"] for one in about["pictures"]})


def images_each(about: Mapping[str, Any]) -> int:
    """The number of images that a model made for each caption of a training picture."""
    asked = (one["ways"].get(kind) for one in about["pictures"] for kind in ("own", "trigger"))
    return max((of for found in asked if found for of in found[1:]), default=4)


def confirming(about: Mapping[str, Any]) -> tuple[int, int]:
    """How many images of each training caption were made, and how many of each prompt to make to
    confirm a model: four times as many, and not fewer of any prompt than now.

    >>> confirming({"pictures": [{"ways": {"own": [1, 4], "trigger": [0, 16]}}]})
    (4, 16)
    """
    asked = (one["ways"].get("own") for one in about["pictures"])
    own = next((found[1] for found in asked if found), images_each(about))
    return own, max(4 * own, images_each(about))


def sentence(about: Mapping[str, Any]) -> str:
    """The result of a fine-tune audit in a few words."""
    main = row_of(about, about["main"])
    assert main is not None
    many = different(about)
    pictures = count(many, "training picture")
    asked = len({one["group"] for one in about["pictures"] if {*one["ways"]} & {"own", "trigger"}})
    if 0 < asked < many:
        pictures = f"the {asked} of {pictures} whose captions were asked"
    percent = f"{100 * about['rate']:g} %"
    copies = f"{about['main']} copies {main['copied']} of {count(many, 'training picture')}"
    if main["verdict"] == "copies":
        text = (
            f"{copies}: {main['copies']} of {main['of']} images of their captions are copies."
            f"{_taught_told(about, main)}"
        )
    elif main["verdict"] == AS_BASE:
        text = (
            f"{copies}, in {main['copies']} of {main['of']} images of their captions, no more than"
            f" the base ({(row_of(about, BASE) or main)['copied']}), which was not trained on them."
        )
    elif main["verdict"] == "does not copy":
        text = (
            f"{about['main']} gave no copy of {pictures} in {main['of']} images of their captions:"
            f" with 95 % confidence fewer than {percent} of them are copies."
        )
    else:
        may = "may copy some" if main["copied"] else "gave no copy"
        return f"{about['main']} {may} of {pictures}, but {_why_open(about, main, percent)}."
    if main["nearly"]:
        text += f" {_are(main['nearly'], ' more')} nearly copied."
    if main["alike"]:
        text += f" Of {main['alike']} more it cannot be told: images of the base are as like them."
    last, first = begins(about)
    if first is not None and len(series(about)) > 1:
        models = series(about)
        less = "earlier checkpoint" if models[0]["checkpoint"] != models[-1]["checkpoint"] else ""
        none = f"no {less or 'lower strength'} was looked at"
        before = f"{last} {unseen_in(about, last)}" if last else none
        text += f" {_begin(about)} at {first}{_named(_taught_by(about, first))}; {before}."
    if (cleaned := row_of(about, CLEANED)) is not None:
        text += f" With the neurons off {_left(about, main, cleaned)}."
        text += _kept(about, cleaned)
    return text


def _begin(about: Mapping[str, Any]) -> str:
    """That copies begin; of checkpoints that were looked at with several strengths, at which."""
    models = tuned(about)
    if any(len({one[key] for one in models}) < 2 for key in ("checkpoint", "strength")):
        return "Copies begin"
    main = row_of(about, about["main"])
    assert main is not None
    return f"At strength {main['strength']:g}, copies begin"


def _why_open(about: Mapping[str, Any], main: Mapping[str, Any], percent: str) -> str:
    """Why there is no verdict on a model without a copy."""
    if main["failed"]:
        return f"{count(main['failed'], 'prompt')} gave no images"
    if main["copied"]:
        images = _are(main["copies"], f" of {main['of']} images")
        return (
            f"{images} as like one as a copy is, which may be chance: the base has such images too,"
            " or too few are to tell. Look at them, or give more --images"
        )
    if main["alike"]:
        return (
            f"{_are(main['alike'], ' of them')} as like an image as a copy is, and controls are so"
            " too: the pictures are too alike to tell"
        )
    return (
        f"{main['of']} images of their captions are too few to say that fewer than {percent} are"
        f" copies: it takes {about['needed']}"
    )


def _taught_told(about: Mapping[str, Any], main: Mapping[str, Any]) -> str:
    """How many of the copied pictures the training taught, where the base copies some, too."""
    base, taught = row_of(about, BASE), len(main.get("taught", {}))
    if not base or not base["copied"] or not taught:
        return ""
    which = "all" if taught == main["copied"] else f"{taught}"
    others = (
        "" if which == "all" else "; the others may be chance, or the base copies them as often"
    )
    return f" The training taught {which} of them{others}."


def _taught_by(about: Mapping[str, Any], name: str) -> list[str]:
    """The pictures that a model was taught; if too few images tell, those that it copies and the
    base does not.
    """
    row, base = row_of(about, name) or {}, row_of(about, BASE) or {}
    others = [one for one in row.get("copies_of", {}) if one not in base.get("copies_of", {})]
    return list(row.get("taught", {})) or others


def _named(files: Sequence[str]) -> str:
    """Names of pictures in brackets; at most NAMED."""
    more = ", ..." if len(files) > NAMED else ""
    return f" ({', '.join(files[:NAMED])}{more})" if files else ""


def _left(about: Mapping[str, Any], main: Mapping[str, Any], cleaned: Mapping[str, Any]) -> str:
    """What the main model still copies with its neurons off."""
    if not cleaned["copied"]:
        return "it copies none"
    of_cleaned, of_main = (row.get("copies_of") for row in (cleaned, main))
    told = f"it copies {cleaned['copied']}{_named(list(of_cleaned or {}))}"
    if of_cleaned and of_main and not of_cleaned.keys() & of_main.keys():
        told += ", which it does not copy with them on"
    base = row_of(about, BASE)
    if base is not None and cleaned["verdict"] == AS_BASE:
        told += f", no more than the base ({base['copied']}), which was not trained on them"
    return told


UNSEEN = {
    "does not copy": "gave no copy",
    AS_BASE: "copies no more than the base",
    "cannot be said": "does not tell whether it copies",
}


def unseen_in(about: Mapping[str, Any], name: str) -> str:
    """What is said of a model that is not known to copy more than the base."""
    row = row_of(about, name)
    assert row is not None
    if row["verdict"] == "cannot be said" and not row["copied"]:
        return f"gave no copy in {count(row['of'], 'image')}, which does not tell whether it copies"
    return UNSEEN[row["verdict"]]


def _kept(about: Mapping[str, Any], cleaned: Mapping[str, Any]) -> str:
    """What the cleaned model keeps compared with the others, as sentences; empty if unknown."""
    base = row_of(about, BASE) or {}
    main = row_of(about, about["main"]) or {}
    told = [
        f"{what} is {cleaned[name]:.2f} (tuned model {main[name]:.2f}, base {base[name]:.2f})"
        for name, what in (("subject", "similarity to the subject"), ("a_clip", A_CLIP))
        if all(name in row for row in (cleaned, main, base))
    ]
    text = f" Its {' and its '.join(told)}." if told else ""
    if "a_clip" not in cleaned:
        return f"{text} Whether its images follow the captions was not measured (--clip)."
    if (limit := least_fit(about)) is not None:
        text += f" Images are off the captions under an A_CLIP of {limit:.2f}."
    if is_forgotten(about, cleaned):
        text += " With them off, hardly more of the subject is left than in the base, or less."
    if astray(about):
        text += " Its images no longer follow the captions: do not use it as it is."
    return text


def _are(count: int, what: str = "") -> str:
    """
    >>> _are(1), _are(2, " more")
    ('1 is', '2 more are')
    """
    return f"{count}{what} {'is' if count == 1 else 'are'}"


def copied_of(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the lines that say how many training pictures each model copies: the main
    one, the base, and the main one with the neurons off.
    """
    of = different(about)
    names = {
        about["main"]: "training pictures copied",
        BASE: "copied by the base",
        CLEANED: "copied with the neurons off",
    }
    found = [(names[name], row_of(about, name)) for name in names]
    return [(what, f"{row['copied']} of {of}") for what, row in found if row is not None]


def captions_told(captions: Sequence[Caption]) -> str:
    """What became of the captions of a fine-tune whose images are copies, in numbers that add up;
    empty if there are none.
    """
    copied = [(c, c.detected) for c in captions if c.detected is not None and c.detected.copies]
    if not copied:
        return ""
    became = Counter(standing(caption) for caption, _ in copied)
    parts = [f"{n} {WORDS[word].clause or word}" for word, n in became.items()]
    told = (
        f"Images of {len(copied)} of {count(len(captions), 'caption')} are copies. With all neurons"
        f" off: {joined(parts)}."
    )
    if under := sum(found.score < found.tau for _, found in copied):
        told += (
            f" {under} of them score under tau: they count as memorized because they are copied."
        )
    searched = [c for c in captions if c.detected is not None and c.detected.memorized]
    if more := len(searched) - len(copied):
        verb, them = ("scores", "it") if more == 1 else ("score", "them")
        told += f" {more} more {verb} over tau, so the search looked at {them}, too."
    return told


def controls_told(about: Mapping[str, Any]) -> str:
    """How many controls are as similar to a training picture as a copy, in a sentence; empty if
    none is.
    """
    hits, of = (row_of(about, about["main"]) or {}).get("controls", (0, 0))
    if not hits:
        return ""
    held_out = ", and pictures held out" if about.get("held_out") else ""
    return (
        f"Of {count(of, 'picture')} that do not come from this training (images of the"
        f" base{held_out}), {hits} {'has' if hits == 1 else 'have'} a similarity of .7 or more to a"
        " training picture, as copies have: by chance, or as a memory of the base. The model copies"
        " such a training picture only with an image that is more similar to it than all of these."
        " The row of the base counts those that also stand out among the training pictures."
    )


def canaries_told(about: Mapping[str, Any]) -> str:
    """How sensitive the copy test is, in a sentence; empty without canaries."""
    main = row_of(about, about["main"]) or {}
    parts = [
        f"{hits} of {of} shown {count} time{'s' * (count != '1')} an epoch"
        f" ({' to '.join(f'{100 * end:.0f}' for end in share(hits, of))} %)"
        for count, (hits, of) in main.get("canaries", {}).items()
    ]
    if not parts:
        return ""
    return f"Canaries seen, at 1 % false positives (95 % interval): {', '.join(parts)}."


def training_of(run: Run) -> dict[str, Any] | None:
    """What a run keeps about training pictures; None for a run made without any.

    Raises InputError if the main model that it names is not among its models.
    """
    if (found := run.meta("training")) is None:
        return None
    about: dict[str, Any] = decoded(Training, found, str(run.path))
    if row_of(about, about["main"]) is None:
        raise damaged(str(run.path), "its training names a main model that it does not have")
    return about


def worst(about: Mapping[str, Any], most: int = SHOWN) -> list[int]:
    """Numbers of the most copied training pictures, one of each group."""
    order = list(STATES)
    pictures = about["pictures"]
    ranked = sorted(
        range(len(pictures)),
        key=lambda k: (order.index(pictures[k]["state"]), -pictures[k]["similarity"], k),
    )
    first = {pictures[k]["group"]: k for k in reversed(ranked)}
    return [k for k in ranked if first[pictures[k]["group"]] == k][:most]
