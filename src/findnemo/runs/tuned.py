"""What the summary of a fine-tune audit says: which models copy, from where on, and which of them
may be taken.

A summary is the run's value `training`, made by `fine_tunes.summary`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from findnemo.runs.results import Training, as_stored_type, damage_error
from findnemo.runs.store import Run
from findnemo.runs.wording import count, word_list
from findnemo.training import AS_BASE, STATES, share

BASE = "base"
CLEANED = "neurons off"
SHOWN = 24  # training pictures in the grid
NAMED = 5  # copied pictures that a sentence names
KEPT = 0.5  # share of the fit to the captions that a usable repair keeps
A_CLIP = "fit to the captions (A_CLIP)"
OPEN = "?"  # marks a verdict that is not confirmed
ASTRAY = "off the captions"  # in tables, of a repair whose images do not follow the captions
FREE = ("does not copy", AS_BASE)  # verdicts on models that may be taken
UNTOLD = "cannot be said"  # the verdict where images do not tell
CAUSES = {  # why the main model copies a picture
    "training": "the training taught it",
    "base": "the base copies it too, and not clearly less often",
    "chance": "too few images copy it to tell this from chance",
}


def row_of(about: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The variant of a name in a `summary`; None if there is none."""
    found: dict[str, Any] | None = next((v for v in about["variants"] if v["name"] == name), None)
    return found


def main_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The variant of a `summary` in which neurons are searched."""
    found: dict[str, Any] = next(v for v in about["variants"] if v["name"] == about["main"])
    return found


def tuned_models(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tuned models of a `summary`, in order: without the base, and without that with its
    neurons off.
    """
    return [v for v in about["variants"] if v["name"] not in (BASE, CLEANED)]


def series(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tuned models of a `summary` to compare, in order: all checkpoints at the strength of the
    main model, or all strengths of a single checkpoint.
    """
    models = tuned_models(about)
    if len({v["checkpoint"] for v in models}) < 2:
        return models
    strength = main_of(about)["strength"]
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
    return bool(main_of(about)["verdict"] == "copies")


def newest_copies(about: Mapping[str, Any]) -> bool:
    """Whether the newest model, such as the latest checkpoint of a training, gives copies."""
    return bool(about["variants"][-1]["verdict"] == "copies")


def astray(about: Mapping[str, Any]) -> bool:
    """Whether images of the model with its neurons off no longer follow the captions.

    The fit to the captions (A_CLIP) must have lost more than half of its way down to the fit of the
    tuned model's images to captions of other subjects. The way begins at the base or the tuned
    model, whichever fits worse: a repair need not follow captions better than they do. False if it
    was not measured, or if that way is no way: a CLIP that does not tell captions apart tells
    nothing of the repair.
    """
    cleaned = row_of(about, CLEANED) or {}
    limit = least_fit(about)
    return limit is not None and "a_clip" in cleaned and bool(cleaned["a_clip"] < limit)


def least_fit(about: Mapping[str, Any]) -> float | None:
    """The fit to the captions (A_CLIP) that the model with its neurons off must keep (`astray`).

    None if it was not measured, or if a CLIP tells captions apart so little that the fit tells
    nothing.
    """
    base = row_of(about, BASE) or {}
    main = main_of(about)
    if "a_clip" not in base or "a_clip" not in main:
        return None
    floor: float = main.get("a_clip_other", 0.0)
    whole = min(base["a_clip"], main["a_clip"]) - floor
    return floor + KEPT * whole if whole > 0 else None


def is_forgotten(about: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a model shows no more of the subject than the base does, as far as further images tell:
    the interval of its similarity reaches down to the base's.

    False for a model without further images, and if the similarity `tells_subject` of no model.
    """
    is_known = "chosen_by" in row and tells_subject(about)
    return is_known and _is_over_base(about, row) is False


def tells_subject(about: Mapping[str, Any]) -> bool:
    """Whether the similarity to the subject tells the main model from the base, or one that further
    images were made of.
    """
    known = [
        one for one in tuned_models(about) if "chosen_by" in one or one["name"] == about["main"]
    ]
    return any(_is_over_base(about, one) for one in known)


def _is_over_base(about: Mapping[str, Any], row: Mapping[str, Any]) -> bool | None:
    """Whether a model shows more of the subject than the base; None if it was not measured."""
    base = row.get("beside") or row_of(about, BASE) or {}
    if "subject_low" not in row or "subject" not in base:
        return None
    return bool(row["subject_low"] > base["subject"])


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
    """What a table calls a model: its verdict, or ASTRAY; nothing for the base itself.

    A question mark marks a model that seems free of copies beside a main one that is not, and that
    further images have not confirmed.
    """
    if row["name"] == BASE:
        return ""
    if row["name"] == CLEANED and astray(about):
        return ASTRAY
    is_open = row["verdict"] in FREE and copies_in(about) and "chosen_by" not in row
    return f"{row['verdict']}{OPEN * is_open}"


def variant_told(about: Mapping[str, Any], name: str) -> str:
    """What the audit says of one of its models, for somebody who takes it.

    >>> row = {"name": "LoRA x 0.4", "verdict": "as the base", "copied": 1, "copies": 0, "of": 80}
    >>> row["copies_of"] = {"a.png": 2}
    >>> about = {"main": "LoRA x 0.4", "variants": [row], "pictures": [{"group": 0}]}
    >>> said = variant_told(about, "LoRA x 0.4")
    >>> said[:74]
    'what the audit says of LoRA x 0.4: as the base (it copies 1 of 1 training '
    >>> said[74:]
    'picture (a.png), by any prompt; 0 of 80 images of their captions are copies)'
    """
    row = row_of(about, name)
    assert row is not None
    told = f"it copies {row['copied']} of {count(different(about), 'training picture')}"
    told += f"{_named(about, row.get('copies_of', ()))}, by any prompt; {row['copies']} of"
    told += f" {count(row['of'], 'image')} of their captions are copies"
    if beside := row.get("beside"):
        told += f"; the base copies {beside['copied']}, in {beside['copies']} of {beside['of']}"
    return f"what the audit says of {name}: {label(about, row)} ({told}){_unfit(about, row)}"


def _unfit(about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Why a model is not to be released; empty if nothing is known against it."""
    if row["verdict"] not in FREE:
        return "; do not release it"
    if row not in fair(about):
        return "; do not release it: see the report" if row["name"] != about["main"] else ""
    return "" if "chosen_by" in row else "; further images have not confirmed it"


def choice(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model that is advised instead of the main one, of those that are `confirmed_models`; None if there
    is none.

    It is the checkpoint or strength that shows most of the subject; the model with the neurons off
    only if there is no other: how much an edit spoils its images, the similarity does not tell.
    """
    models = confirmed_models(about)
    whole = _most_of_subject(one for one in models if one["name"] != CLEANED)
    return whole or next(iter(models), None)


def confirmed_models(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models that may be published: `fair`, also by further images."""
    return [one for one in fair(about) if "chosen_by" in one]


def to_confirm(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model that further images are to confirm next: that with the neurons off, or if none is
    confirmed yet the fair one of the greatest strength, and of these the latest checkpoint; None if
    there is none.

    It keeps most of the training: its first images are too few to say which shows most of the
    subject. Only where the main model copies is another one looked for.
    """
    if not copies_in(about):
        return None
    left = [one for one in _hopeful(about) if "chosen_by" not in one]
    cleaned = [one for one in left if one["name"] == CLEANED]
    wanted = cleaned or ([] if choice(about) else left)
    return max(wanted, key=lambda one: _training_of(about, one)[::-1], default=None)


def fair(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models that may be taken, as far as they were looked at: they do not copy, or only as the
    base does, and show more of the subject than it does.
    """
    return [one for one in _hopeful(about) if one["verdict"] in FREE]


def _hopeful(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models that are not known to copy, and that may show more of the subject than the base.

    Not the base itself, and not the main model. Not a model whose images no longer follow the captions. Not a later
    checkpoint or a greater strength than a model that was `refuted_models`: it copies sooner. Not an earlier
    one or a smaller strength than one that shows nothing of the subject: it shows less.
    """
    names = (BASE, CLEANED, about["main"]) if astray(about) else (BASE, about["main"])
    bad = refuted_models(about)
    lost = [one for one in about["variants"] if is_forgotten(about, one)]
    return [
        one
        for one in about["variants"]
        if one["name"] not in names
        and one["verdict"] in (*FREE, UNTOLD)
        and not ("chosen_by" in one and one["verdict"] == UNTOLD)
        and not any(_is_under(about, other, one) for other in bad)
        and not any(one is other or _is_under(about, one, other) for other in lost)
    ]


def refuted_models(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models that were not known to copy, and of which further images did not show that they do
    not.
    """
    return [v for v in about["variants"] if "chosen_by" in v and v["verdict"] not in FREE]


def _is_under(about: Mapping[str, Any], one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a LoRA is no later a checkpoint than another one, and no stronger."""
    if CLEANED in (one["name"], other["name"]):
        return False
    (then, less), (now, more) = (_training_of(about, model) for model in (one, other))
    return then <= now and less <= more


def taught_so_far(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> dict[str, int]:
    """The pictures that a model copies and was taught, itself or as an earlier checkpoint or smaller
    strength, with the number of images.

    >>> one = {"name": "a", "checkpoint": "1", "strength": 1.0, "copies_of": {"x": 2}, "taught": {"x": 2}}
    >>> two = {"name": "b", "checkpoint": "2", "strength": 1.0, "copies_of": {"x": 1}, "taught": {}}
    >>> taught_so_far([one, two], two), taught_so_far([one, two], one)
    ({'x': 1}, {'x': 2})
    """
    if row["name"] in (BASE, CLEANED):
        return dict(row.get("taught", {}))
    models = [one for one in rows if one["name"] not in (BASE, CLEANED)]
    under = [one for one in models if _is_under({"variants": rows}, one, row)]
    known = {file for one in under for file in one.get("taught", {})}
    return {file: many for file, many in row.get("copies_of", {}).items() if file in known}


def _training_of(about: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int, float]:
    """The place of a model's checkpoint in the order of the training, and its strength."""
    steps = list(dict.fromkeys(one["checkpoint"] for one in about["variants"]))
    return steps.index(row["checkpoint"]), abs(row["strength"] or 1.0)


def _most_of_subject(models: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    return max(models, key=lambda one: one.get("subject", 0.0), default=None)


def beside(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models whose images of the same noise show what is left of the subject: the base, those that
    may be published (or of those that were to be, one), the main one, and that with its neurons
    off. Only those with `looks`, paths of an image of each of a few captions.
    """
    best = confirmed_models(about) or [
        one for one in [_most_of_subject(refuted_models(about))] if one
    ]
    others = (one["name"] for one in best if one["name"] != CLEANED)
    names = (BASE, *others, about["main"], CLEANED)
    rows = (row_of(about, name) for name in dict.fromkeys(names) if name)
    return [row for row in rows if row is not None and row.get("looks")]


def different(about: Mapping[str, Any]) -> int:
    """The number of different training pictures; equal pictures count once."""
    return len({one["group"] for one in about["pictures"]})


def images_each(about: Mapping[str, Any]) -> int:
    """The number of images that a model made for each caption of a training picture."""
    asked = (one["ways"].get(kind) for one in about["pictures"] for kind in ("own", "trigger"))
    return max((of for found in asked if found for of in found[1:]), default=4)


def sentence(about: Mapping[str, Any]) -> str:
    """The result of a fine-tune audit in a few words."""
    main = main_of(about)
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
    by_base = (row_of(about, BASE) or {}).get("nearly", 0)
    if main["nearly"] > by_base:
        beside = f", by the base {by_base}" if by_base else ""
        text += f" {_are(main['nearly'], ' more')} nearly copied{beside}."
    if main["alike"]:
        text += f" Of {main['alike']} more it cannot be told: images of the base are as like them."
    last, first = begins(about)
    if first is not None and len(series(about)) > 1:
        models = series(about)
        less = "earlier checkpoint" if models[0]["checkpoint"] != models[-1]["checkpoint"] else ""
        none = f"no {less or 'lower strength'} was looked at"
        before = f"{last} {unseen_in(about, last)}" if last else none
        text += f" {_begin(about)} at {first}{_taught_by(about, first)}; {before}."
    if (cleaned := row_of(about, CLEANED)) is not None:
        text += f" With the neurons off {_left(about, main, cleaned)}."
        text += _kept(about, cleaned)
    return text


def _begin(about: Mapping[str, Any]) -> str:
    """That copies begin; of checkpoints that were looked at with several strengths, at which."""
    models = tuned_models(about)
    if any(len({one[key] for one in models}) < 2 for key in ("checkpoint", "strength")):
        return "Copies begin"
    return f"At strength {main_of(about)['strength']:g}, copies begin"


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
    """Which of the copied pictures the training taught, and why it copies the others; empty if the
    base copies nothing and all were taught.
    """
    base = row_of(about, BASE)
    known = main.get("taught") or {}
    if not base or not known:
        return ""
    if len(known) == main["copied"]:
        return " The training taught all of them." if base["copied"] else ""
    why: dict[str, list[str]] = {}
    for one in about["pictures"]:
        if one.get("cause") in ("base", "chance") and one["file"] in main.get("copies_of", {}):
            why.setdefault(one["cause"], []).append(one["file"])
    text = f" The training taught {len(known)} of them{_named(about, known)}."
    if of_base := why.get("base"):
        text += f" The base copies {len(of_base)} of them too{_named(about, of_base)}."
    if chance := why.get("chance"):
        text += f" {len(chance)} of them may be chance{_named(about, chance)}."
    return text


def _taught_by(about: Mapping[str, Any], name: str) -> str:
    """The pictures that a model was taught, in brackets; if too few images tell, those that it copies
    and the base does not.
    """
    row = row_of(about, name) or {}
    base = row_of(about, BASE) or {}
    if known := list(row.get("taught", {})):
        still = [one for one in known if one in main_of(about).get("taught", {})]
        return _named(about, still or known, "taught ")
    others = [one for one in row.get("copies_of", {}) if one not in base.get("copies_of", {})]
    return _named(about, others, "copied ")


def _named(about: Mapping[str, Any], files: Iterable[str], what: str = "") -> str:
    """Names of pictures in brackets; at most NAMED. Without folders, if these do not tell them
    apart.

    >>> _named({"pictures": [{"file": "2_sks/a.png"}, {"file": "2_sks/b.png"}]}, ["2_sks/a.png"])
    ' (a.png)'
    """
    names = [one["file"] for one in about["pictures"] if "file" in one]
    plain = {name: name.rpartition("/")[2] for name in names}
    is_plain = len({*plain.values()}) == len({*names})
    told = [plain.get(file, file) if is_plain else file for file in files]
    more = ", ..." if len(told) > NAMED else ""
    return f" ({what}{', '.join(told[:NAMED])}{more})" if told else ""


def _left(about: Mapping[str, Any], main: Mapping[str, Any], cleaned: Mapping[str, Any]) -> str:
    """What the main model still copies with its neurons off."""
    if not cleaned["copied"]:
        return "it copies none"
    of_cleaned, of_main = (row.get("copies_of") for row in (cleaned, main))
    told = f"it copies {cleaned['copied']}{_named(about, of_cleaned or ())}"
    if of_cleaned and of_main and not of_cleaned.keys() & of_main.keys():
        told += ", which it does not copy with them on"
    base = cleaned.get("beside") or row_of(about, BASE)
    if base is not None and cleaned["verdict"] == AS_BASE:
        told += f", no more than the base ({base['copied']}), which was not trained on them"
    return told


UNSEEN = {
    "does not copy": "gave no copy",
    AS_BASE: "copies no more than the base",
    UNTOLD: "may copy or not, its images do not tell",
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
    text = kept_told(about, cleaned)
    if "a_clip" not in cleaned:
        return f"{text} Whether its images follow the captions was not measured (--clip)."
    if (limit := least_fit(about)) is not None:
        text += f" Images are off the captions under an A_CLIP of {limit:.2f}."
    if is_forgotten(about, cleaned):
        text += " With them off, its images show no more of the subject than the base's."
    if astray(about):
        text += " Its images no longer follow the captions: do not use it as it is."
    return text


def copies_told(about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a model that was confirmed or refuted copies, as a clause without its subject.

    >>> row = {"verdict": "copies", "copied": 2, "copies": 5, "of": 80, "taught": {"a.png": 4}}
    >>> copies_told({"pictures": []}, row)
    'copies 2 training pictures, by any prompt, and 5 of 80 images of their captions are copies; the training taught 1 of them (a.png)'
    """
    if row["verdict"] == "does not copy":
        return "gives no copy"
    told = f"copies {count(row['copied'], 'training picture')}"
    if row["verdict"] == AS_BASE:
        told += _named(about, row.get("copies_of", ()))
    told += (
        f", by any prompt, and {row['copies']} of {row['of']} images of their captions are copies"
    )
    if row["verdict"] == AS_BASE:
        beside = row["beside"]
        base = f"{beside['copied']}; {beside['copies']} of {beside['of']} images"
        return f"{told}: no more than of the base ({base})"
    if row["verdict"] != "copies":
        return "does not tell whether it copies" if not row["copied"] else f"may copy{told[6:]}"
    known = row.get("taught") or {}
    taught = f"; the training taught {len(known)} of them{_named(about, known)}" if known else ""
    return f"{told}{taught}"


def confirmed_told(about: Mapping[str, Any]) -> str:
    """Of which models the figures are of further images, and what the base gives for these; empty if
    of none.
    """
    rows = [one for one in about["variants"] if "chosen_by" in one]
    if not rows:
        return ""
    beside = rows[0]["beside"]
    they, were = ("it", "was") if len(rows) == 1 else ("they", "were")
    return (
        f"{word_list([one['name'] for one in rows])}: the figures are of {rows[0]['of']} further images"
        f" with other seeds, since by the first ones {they} {were} not known to copy. For these the base"
        f" copies {count(beside['copied'], 'picture')} ({beside['copies']} of {beside['of']} images)."
    )


def kept_told(about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a model keeps of the subject and of the fit to the captions, beside the main model and
    the base, as a sentence; empty if unknown.
    """
    base = row_of(about, BASE) or {}
    main = main_of(about)
    told = [
        f"{what} is {row[name]:.2f} (as trained {main[name]:.2f}, base {base[name]:.2f})"
        for name, what in (("subject", "similarity to the subject"), ("a_clip", A_CLIP))
        if all(name in one for one in (row, main, base))
    ]
    return f" Its {' and its '.join(told)}." if told else ""


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
    return [
        (what, f"{row['copied']} of {of}" + _beside(row)) for what, row in found if row is not None
    ]


def _beside(row: Mapping[str, Any]) -> str:
    """What the base copies for the further images of a model, in brackets; empty without any."""
    beside = row.get("beside")
    return f" (base {beside['copied']}, {row['of']} further images each)" if beside else ""


def controls_told(about: Mapping[str, Any]) -> str:
    """How many controls are as similar to a training picture as a copy, in a sentence; empty if
    none is.
    """
    hits, of = main_of(about)["controls"]
    if not hits:
        return ""
    held_out = ", and pictures held out" if about.get("held_out") else ""
    return (
        f"Of {count(of, 'image')} that do not come from this training (of the base{held_out}), {hits}"
        f" {'is' if hits == 1 else 'are'} as similar to a training picture as copies are, .7 or more:"
        " by chance, or as a memory of the base. So an image of the model is a copy of such a picture"
        " only if it is more similar to it than all of these."
    )


def canaries_told(about: Mapping[str, Any]) -> str:
    """How sensitive the copy test is, in a sentence; empty without canaries."""
    parts = [
        f"{hits} of {of} shown {count} time{'s' * (count != '1')} an epoch"
        f" ({' to '.join(f'{100 * end:.0f}' for end in share(hits, of))} %)"
        for count, (hits, of) in main_of(about).get("canaries", {}).items()
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
    about: dict[str, Any] = as_stored_type(Training, found, str(run.path))
    if row_of(about, about["main"]) is None:
        raise damage_error(str(run.path), "its training names a main model that it does not have")
    return about


STATES_TOLD = {"as a control": "cannot be told"}  # states of pictures that tables call otherwise
WAYS_TOLD = {  # kinds of prompts that copy a picture
    "own": "own caption",
    "neighbour": "another's caption",
    "trigger": "trigger word",
    "given": "captions given",
    "none": "no prompt",
    "control": "other subjects",
}


def worst(about: Mapping[str, Any]) -> list[int]:
    """Numbers of the SHOWN most copied training pictures, one of each group."""
    order = list(STATES)
    pictures = about["pictures"]
    ranked = sorted(
        range(len(pictures)),
        key=lambda k: (order.index(pictures[k]["state"]), -pictures[k]["similarity"], k),
    )
    first = {pictures[k]["group"]: k for k in reversed(ranked)}
    return [k for k in ranked if first[pictures[k]["group"]] == k][:SHOWN]
