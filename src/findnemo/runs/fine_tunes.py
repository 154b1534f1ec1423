"""Find the copies of a fine-tune: compare finished images of the base model and of each tuned model
with all training pictures.

A variant is a model at one checkpoint and one strength. Its images are in a run directory of its
own in `RUN/variants`; the result of the copy test on all variants is the run's `training`.
"""

from __future__ import annotations

import csv
import hashlib
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.edits import deactivate
from findnemo.errors import InputError
from findnemo.files.marks import marked
from findnemo.files.originals import picture
from findnemo.files.writing import written
from findnemo.images import ImageSettings, generate_many, png, save_png, sheet
from findnemo.metrics import Judges
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.prompts import Prompt, TrainingPicture
from findnemo.runs.audit import Answer, attempted, commit, remember_source
from findnemo.runs.results import Training, damaged, decoded
from findnemo.runs.stages import Progress, Stage, run_stage
from findnemo.runs.standing import WORDS, standing
from findnemo.runs.store import VARIANTS, WATCHED, Caption, Run
from findnemo.runs.table import enter
from findnemo.runs.wording import count, joined
from findnemo.runs.workers import Pool, Unit
from findnemo.runs.worklist import groups, list_open
from findnemo.seeds import TRAINED
from findnemo.training import (
    RATE,
    STATES,
    WAYS,
    Canaries,
    Gallery,
    Generation,
    Judgement,
    Sensitivity,
    described,
    is_more,
    judge,
    needed,
    sensitivity,
    share,
)
from findnemo.training.seen import galleries, seen_in

if TYPE_CHECKING:
    from PIL import Image

STAGE = "pictures"
BASE = "base"
CLEANED = "neurons off"
GRID = "training.png"
SHOWN = 24  # training pictures in the grid
BESIDE = 3  # generations next to each
NAMED = 5  # copied pictures that a sentence names
KEPT = 0.5  # share of the fit to the captions that a usable repair keeps
A_CLIP = "fit to the captions (A_CLIP)"
AS_BASE = "as the base"  # in tables, of a model that copies no more than the base
ASTRAY = "off the captions"  # in tables, of a repair whose images do not follow the captions
THUMBNAIL = 256
OWN = ("own", "trigger", "given", "none")  # prompts that ask for the training pictures
JUDGED = (*OWN, "control")  # prompts whose images are compared with the training pictures
TWINS = ("canary", "twin")  # captions of planted pictures, and of their twins that were held out


@dataclass(frozen=True)
class Question:
    """A prompt for a model, with its kind and the number of images to make.

    `kind`: a kind of `training.Generation`, or one of TWINS.
    """

    prompt: str
    kind: str
    images: int


@dataclass(frozen=True)
class Shown:
    """The generations of a variant, with the file of each. `failed`: prompts without an image."""

    generations: tuple[Generation, ...]
    files: tuple[Path, ...]
    failed: tuple[str, ...] = ()

    def images(self) -> Iterator[Image.Image]:
        return (picture(file) for file in self.files)

    def rows(self, *kinds: str) -> list[int]:
        """Numbers of the generations of some kinds of prompts."""
        return [k for k, one in enumerate(self.generations) if one.kind in kinds]


def folder_of_variant(run: Path, name: str) -> Path:
    """The folder of a variant's images; names that look alike get different folders.

    >>> folder_of_variant(Path("run"), "checkpoint-500 x 0.8").as_posix()
    'run/variants/checkpoint-500-x-0.8-adf1'
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:4]
    return run / VARIANTS / (plain if plain == name else f"{plain}-{digest}".lstrip("-"))


def show(
    folder: Path,
    pool: Pool,
    questions: Sequence[Question],
    settings: ImageSettings,
    neurons: NeuronSet = EMPTY,
    progress: Progress = lambda stage, done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Shown:
    """Make the missing images of a model for all questions, with `neurons` off; return all images.

    The directory keeps the images, and the same call resumes. Raises MismatchError for a directory
    that holds images of another model, other questions or other settings.
    """
    model = pool.model
    identity = model.identity
    kept = {
        "model": identity.fingerprint,
        "identity": identity.to_json(pictures=True),
        "dtype": str(model.dtype).removeprefix("torch."),
        "image_settings": settings.to_json(),
        "neurons": neurons.to_json(),
        "images": {question.kind: question.images for question in questions},
    }
    with Run.create(folder, kept) as run:
        remember_source(run, model)
        prompts = [Prompt(q.prompt, row, q.kind) for row, q in enumerate(questions, 1)]
        enter(run, prompts)
        many = {q.prompt: q.images for q in questions}
        open_, count = list_open(run, STAGE)
        units = (Unit(tuple((c, many[c.text]) for c in group)) for group in groups(run))
        step = partial(_made, settings=settings, neurons=neurons)
        total = len(questions)
        stage = Stage(STAGE, step, units, count, partial(commit, run, STAGE), total, total - open_)
        run_stage(stage, pool, progress, stop)
    return shown(folder, questions)


def shown(folder: Path, questions: Sequence[Question]) -> Shown:
    """The stored images of a variant, in the order of the questions."""
    generations: list[Generation] = []
    files: list[Path] = []
    failed: list[str] = []
    with Run.open(folder) as run:
        found = {c.text: c for c in run.captions(stage=STAGE)}
    for question in questions:
        if (caption := found.get(question.prompt)) is None:
            failed.append(question.prompt)
            continue
        for k in range(caption.results[STAGE]["images"]):
            generations.append(Generation(question.prompt, question.kind, k))
            files.append(folder / _file(caption, k))
    return Shown(tuple(generations), tuple(files), tuple(failed))


def _file(caption: Caption, sample: int) -> str:
    return f"images/{caption.slug}/{sample:03d}.png"


def _made(
    model: Model, items: Sequence[tuple[Caption, int]], settings: ImageSettings, neurons: NeuronSet
) -> list[Answer]:
    def one(caption: Caption, count: int) -> Answer:
        rows = [(caption.text, TRAINED + k) for k in range(count)]
        with deactivate(model, neurons):
            images = generate_many(model, rows, settings)
        files = {_file(caption, k): png(image) for k, image in enumerate(images)}
        return Answer({"images": count, "evaluations": count * settings.passes}, files)

    return [attempted(model, partial(one, caption, count)) for caption, count in items]


# judgement ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """What all variants are judged by: training pictures, and held-out pictures as vectors (H, D).

    `canaries`: pictures planted in the training set, if any. They are judged separately.
    """

    pictures: Sequence[TrainingPicture]
    gallery: Gallery
    judges: Judges
    held_out: Tensor
    rate: float = RATE
    canaries: Canaries | None = None

    @cached_property
    def planted(self) -> tuple[Gallery, Gallery]:
        """The canaries and their twins, as the copy test sees them."""
        assert self.canaries is not None
        return galleries(self.canaries, self.judges.descriptor)

    @property
    def captions(self) -> list[str | None]:
        return [picture.caption for picture in self.pictures]


@dataclass(frozen=True)
class Variant:
    """A judged model: its name, its checkpoint and the strength of its LoRA.

    `vectors`: of its generations, (G, D). `judgement`: of the generations that ask for training
    pictures. `costs`: how much of the subject remains (`costs`). `seen`: how many canaries the copy
    test sees.
    """

    name: str
    checkpoint: str | None
    strength: float | None
    shown: Shown
    vectors: Tensor
    judgement: Judgement
    costs: Mapping[str, float]
    seen: Sensitivity | None = None

    @property
    def rows(self) -> list[int]:
        """Numbers of the judged generations among all of the variant."""
        return self.shown.rows(*JUDGED)


def judged(
    subject: Subject,
    shown: Shown,
    base: Tensor | None,
    name: str,
    checkpoint: str | None = None,
    strength: float | None = None,
) -> Variant:
    """Run the copy test on a variant. `base`: vectors of the base model's images, None for
    itself.
    """
    vectors = described(shown.images(), subject.judges.descriptor)
    asking = shown.rows(*JUDGED)
    controls = [part for part in (subject.held_out, base) if part is not None and len(part)]
    judgement = judge(
        subject.gallery,
        subject.captions,
        [shown.generations[k] for k in asking],
        vectors[asking],
        torch.cat(controls) if controls else None,
    )
    found = costs(subject, shown, vectors, judgement)
    seen = None if base is None else _sensitivity(subject, shown, vectors)
    return Variant(name, checkpoint, strength, shown, vectors, judgement, found, seen)


def _sensitivity(subject: Subject, shown: Shown, vectors: Tensor) -> Sensitivity | None:
    """How many canaries a variant reproduces; None without canaries."""
    if subject.canaries is None:
        return None
    rows: dict[str, list[int]] = {}
    for k in shown.rows(*TWINS):
        rows.setdefault(shown.generations[k].prompt, []).append(k)
    captions = [one.caption for one in subject.canaries]
    captions += [one.twin_caption for one in subject.canaries]
    stacked = torch.stack([vectors[rows[caption]] for caption in captions])
    return sensitivity(subject.canaries, *seen_in(subject.canaries, stacked, *subject.planted))


def costs(
    subject: Subject, shown: Shown, vectors: Tensor, judgement: Judgement
) -> dict[str, float]:
    """How much of the subject a variant shows, over generations of the training captions.

    `subject`: the median similarity to the nearest training picture, of generations that are no
    copies. `left`: how many of these there are. `diversity`: 1 minus the mean similarity of two
    images of one prompt. `a_clip`: the median fit to the caption, if there is a CLIP.
    `a_clip_other`: the same images' fit to captions of other subjects. Values that cannot be
    measured are left out.
    """
    own = shown.rows("own") or shown.rows("trigger") or shown.rows("given")
    values: dict[str, float] = {}
    copies = {s.generation for s in judgement.sightings if s.copy}
    asking = shown.rows(*JUDGED)
    fair = [k for position, k in enumerate(asking) if position not in copies and k in set(own)]
    if fair:
        nearest = subject.gallery.similarity(vectors[fair]).amax(1)
        values |= {"subject": float(nearest.median()), "left": len(fair)}
    if apart := _diversities(shown, vectors, own):
        values["diversity"] = statistics.fmean(apart)
    if subject.judges.alignment is not None and own:
        images = [picture(shown.files[k]) for k in own]
        captions = [shown.generations[k].prompt for k in own]
        values["a_clip"] = float(subject.judges.alignment(images, captions).median())
        controls = (shown.generations[k].prompt for k in shown.rows("control"))
        if others := list(dict.fromkeys(controls)):
            strangers = [others[k % len(others)] for k in range(len(own))]
            values["a_clip_other"] = float(subject.judges.alignment(images, strangers).median())
    return {name: round(value, 4) for name, value in values.items()}


def _diversities(shown: Shown, vectors: Tensor, own: Sequence[int]) -> list[float]:
    """For each prompt, 1 minus the mean similarity of two of its images."""
    prompts: dict[str, list[int]] = {}
    for k in own:
        prompts.setdefault(shown.generations[k].prompt, []).append(k)
    found = []
    for rows in prompts.values():
        if len(rows) > 1:
            first, second = torch.triu_indices(len(rows), len(rows), 1)
            alike = (vectors[rows][first] * vectors[rows][second]).sum(1)
            found.append(1 - float(alike.mean()))
    return found


# what it reports ----------------------------------------------------------------------------------


def summary(
    subject: Subject,
    variants: Sequence[Variant],
    main: str,
    root: Path,
    notes: Sequence[str] = (),
    begun: Sequence[str] = (),
) -> dict[str, Any]:
    """The result of a fine-tune audit as JSON, the run's `training`.

    `variants`: the base first, then the tuned models in order. `main`: the variant in which neurons
    are searched. `root`: the folder that names of pictures are relative to. `begun`: the arguments
    of the command that begins such an audit, without --out.
    """
    of_main = next(v for v in variants if v.name == main)
    base = next((v.judgement.rate() for v in variants if v.name == BASE), (0, 0))
    rows = [
        _of_variant(v, subject.rate, base) | {"copies_of": _copies_of(subject, v, root)}
        for v in variants
    ]
    names = [row["name"] for row in series(rows, main)]
    # the base, too, can copy a picture
    looked = [v for v in variants if v.name == BASE]
    looked += [next(v for v in variants if v.name == name) for name in names]
    pictures = [
        {
            "file": relative(one.path, root),
            "caption": one.caption,
            "group": subject.gallery.groups[k],
            **_of_picture(of_main, k),
            **_beside_base(variants, k),
            "begins": next(
                (v.name for v in looked if v.judgement.pictures[k].state == "copied"), None
            ),
        }
        for k, one in enumerate(subject.pictures)
    ]
    about = {
        "main": main,
        "rate": subject.rate,
        "needed": needed(subject.rate),
        "descriptor": subject.judges.descriptor is not None,
        "held_out": subject.held_out is not None and len(subject.held_out) > 0,
        "pictures": pictures,
        "variants": rows,
        "notes": list(notes),
        "begun": list(begun),
    }
    return {"sentence": sentence(about), **about}


def _copies_of(subject: Subject, variant: Variant, root: Path) -> dict[str, int]:
    """Names of the pictures that a variant copies, one of each group, and in how many images."""
    first = {group: k for k, group in reversed(list(enumerate(subject.gallery.groups)))}
    return {
        relative(subject.pictures[first[group]].path, root): copies_by(variant, first[group])
        for group in variant.judgement.of("copied")
    }


def copies_by(variant: Variant, number: int) -> int:
    """The number of a variant's images that copy a picture, whatever their prompts."""
    return sum(hits for hits, _ in variant.judgement.pictures[number].ways.values())


def relative(path: Path, root: Path) -> str:
    """The name of a training picture relative to `root`; only its file name if it is elsewhere."""
    full = path.resolve()
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else path.name


def _beside_base(variants: Sequence[Variant], number: int) -> dict[str, Any]:
    """How many images of the base copy a picture, and the one most like it."""
    base = next((v for v in variants if v.name == BASE), None)
    if base is None:
        return {}
    copies = copies_by(base, number)
    return {"base": {"copies": copies, "nearest": _nearest(base, number)[:1]}}


def _of_picture(variant: Variant, number: int) -> dict[str, Any]:
    found = variant.judgement.pictures[number]
    return {
        "state": found.state,
        "similarity": found.similarity,
        "level": found.level,
        "margin": found.margin,
        "ways": {way: list(counts) for way, counts in found.ways.items()},
        "nearest": _nearest(variant, number),
    }


def _nearest(variant: Variant, number: int) -> list[str]:
    """Paths in the run of a variant's images that are most like a picture."""
    rows = variant.rows
    files = (variant.shown.files[rows[k]] for k in variant.judgement.pictures[number].nearest)
    return [f"{VARIANTS}/{file.relative_to(_variants(variant)).as_posix()}" for file in files]


def _variants(variant: Variant) -> Path:
    """The folder of all variants, from a file of one: variants/NAME/images/SLUG/000.png."""
    return variant.shown.files[0].parents[3]


def _of_variant(variant: Variant, rate: float, base: tuple[int, int]) -> dict[str, Any]:
    found = variant.judgement
    copies, of = found.rate()
    low, high = share(copies, of)
    said = found.verdict(rate, base)
    if said == "does not copy" and variant.shown.failed:
        said = "cannot be said"
    return {
        "name": variant.name,
        "checkpoint": variant.checkpoint,
        "strength": variant.strength,
        "verdict": said,
        "failed": len(variant.shown.failed),
        "alike": len(found.of("as a control")),
        "copied": len(found.of("copied")),
        "nearly": len(found.of("nearly")),
        "copies": copies,
        "of": of,
        "low": round(low, 4),
        "high": round(high, 4),
        "controls": list(found.controls),
        **variant.costs,
        **_of_canaries(variant),
    }


def _of_canaries(variant: Variant) -> dict[str, Any]:
    """How many canaries are seen, by repeats an epoch: [hits, canaries]."""
    if variant.seen is None:
        return {}
    return {"canaries": {str(n): [one.hits, one.of] for n, one in variant.seen.seen.items()}}


def row_of(about: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The variant of a name in a `summary`; None if there is none."""
    found: dict[str, Any] | None = next((v for v in about["variants"] if v["name"] == name), None)
    return found


def series(variants: Sequence[Mapping[str, Any]], main: str) -> list[Mapping[str, Any]]:
    """The tuned models to compare, in order: all checkpoints at the strength of the main model, or
    all strengths of a single checkpoint.
    """
    tuned = [v for v in variants if v["name"] not in (BASE, CLEANED)]
    if len({v["checkpoint"] for v in tuned}) < 2:
        return tuned
    strength = next(v["strength"] for v in tuned if v["name"] == main)
    return [v for v in tuned if v["strength"] == strength]


def begins(about: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Names of the last model before copies begin, and of the first that copies more than the
    base.
    """
    last = None
    for variant in series(about["variants"], about["main"]):
        if variant["verdict"] == "copies" and not as_base(about, variant):
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
    rows = [row_of(about, name) or {} for name in (BASE, about["main"], CLEANED)]
    if any("a_clip" not in row for row in rows):
        return False
    base, main, cleaned = (row["a_clip"] for row in rows)
    floor = rows[1].get("a_clip_other", 0.0)
    whole = min(base, main) - floor
    return bool(whole > 0 and cleaned - floor < KEPT * whole)


def as_base(about: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a model that copies does so no more than the base.

    It copies no other pictures, and no significantly larger share of its images are copies. The
    base was not trained on the pictures, so a picture that it copies in one image only shows what
    chance gives. If there is one, such copies of the model do not count as other pictures, unless
    its share of copies is larger than the base's.
    """
    base = row_of(about, BASE)
    if base is None or row["name"] == BASE or row["verdict"] != "copies":
        return False
    mine, of_base = (row["copies"], row["of"]), (base["copies"], base["of"])
    if is_more(mine, of_base):
        return False
    others = beyond_base(about, row)
    if not others:
        return bool(row["copied"] <= base["copied"])
    by_chance = 1 in base["copies_of"].values() and all(n == 1 for n in others.values())
    return by_chance and mine[0] * of_base[1] <= of_base[0] * mine[1]


def beyond_base(about: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, int]:
    """Names of the pictures that a model copies and the base does not, one of each group, and in
    how many images.

    >>> base = {"name": "base", "copies_of": {"a.png": 1}}
    >>> beyond_base({"variants": [base]}, {"copies_of": {"a.png": 4, "b.png": 2}})
    {'b.png': 2}
    """
    base = row_of(about, BASE)
    if base is None or "copies_of" not in base:  # an older findnemo did not keep them
        return {}
    copied = row.get("copies_of", {})
    return {file: n for file, n in copied.items() if file not in base["copies_of"]}


def may_be_chance(about: Mapping[str, Any], number: int) -> bool:
    """Whether a picture is copied by one image only, where the base, too, has such copies."""
    hits = sum(copies for copies, _ in about["pictures"][number]["ways"].values())
    base = row_of(about, BASE) or {}
    return hits == 1 and 1 in base.get("copies_of", {}).values()


def copied_by(about: Mapping[str, Any], number: int) -> list[str]:
    """Names of the models that copy a training picture, or one that is equal to it, each with the
    number of images that do.
    """
    pictures = about["pictures"]
    group = pictures[number]["group"]
    equal = [one["file"] for one in pictures if one["group"] == group]
    found = (
        (v["name"], sum(v.get("copies_of", {}).get(file, 0) for file in equal))
        for v in about["variants"]
    )
    return [f"{name} ({copies})" for name, copies in found if copies]


def label(about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a table calls a model: its verdict, AS_BASE, or ASTRAY; nothing for the base itself."""
    if row["name"] == BASE:
        return ""
    if row["name"] == CLEANED and astray(about):
        return ASTRAY
    return AS_BASE if as_base(about, row) else str(row["verdict"])


def variant_told(about: Mapping[str, Any], name: str) -> str:
    """What the audit says of one of its models, for somebody who takes it.

    >>> row = {"name": "LoRA x 0.4", "verdict": "does not copy", "copies": 0, "of": 80}
    >>> variant_told({"variants": [row]}, "LoRA x 0.4")
    'what the audit says of LoRA x 0.4: does not copy (0 of 80 images are copies)'
    """
    row = row_of(about, name)
    assert row is not None
    copies = f"{row['copies']} of {count(row['of'], 'image')} are copies"
    return f"what the audit says of {name}: {label(about, row)} ({copies})"


def choice(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model that shows most of the subject without a copy, or with no more than the base; None
    if there is none.

    The base is no choice: it shows least of the subject. Nor is a model whose images no longer
    follow the captions.
    """
    names = (BASE, CLEANED) if astray(about) else (BASE,)
    fair = [
        v
        for v in about["variants"]
        if v["name"] not in names
        and (v["verdict"] != "copies" or as_base(about, v))
        and "subject" in v
    ]
    return max(fair, key=lambda v: v["subject"], default=None)


def different(about: Mapping[str, Any]) -> int:
    """The number of different training pictures; equal pictures count once."""
    return len({one["group"] for one in about["pictures"]})


def images_each(about: Mapping[str, Any]) -> int:
    """The number of images that a model made for each caption of a training picture."""
    asked = (one["ways"].get(kind) for one in about["pictures"] for kind in ("own", "trigger"))
    return max((of for found in asked if found for of in found[1:]), default=4)


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
    if main["verdict"] == "copies":
        text = (
            f"{_are(main['copied'], f' of {many} training pictures' if many > 1 else '')} copied:"
            f" {main['copies']} of {main['of']} images of their captions are copies"
            f"{_as_base(about, main)}."
        )
    elif main["verdict"] == "does not copy":
        text = (
            f"No copy of {pictures} in {main['of']} images of their captions: with 95 % confidence"
            f" fewer than {percent} of them are copies."
        )
    else:
        begin = "There may be copies" if main["copied"] else "No copy was seen"
        return f"{begin} of {pictures}, but {_why_open(about, main, percent)}."
    if main["nearly"]:
        text += f" {_are(main['nearly'], ' more')} nearly copied."
    last, first = begins(about)
    if first is not None and len(series(about["variants"], about["main"])) > 1:
        before = f"; {last} {unseen_in(about, last)}." if last else ", the first looked at."
        text += f" Copies begin at {first}{_named(_new_in(about, first))}{before}"
    if (cleaned := row_of(about, CLEANED)) is not None:
        left = "none is" if not cleaned["copied"] else f"{_are(cleaned['copied'])} still"
        files = _named(list(cleaned.get("copies_of", {})))
        text += f" With the neurons off {left} copied{files}{_as_base(about, cleaned)}."
        text += _kept(about, cleaned)
    return text


def _why_open(about: Mapping[str, Any], main: Mapping[str, Any], percent: str) -> str:
    """Why there is no verdict on a model without a copy."""
    if main["failed"]:
        return f"{count(main['failed'], 'prompt')} gave no images"
    if main["copied"]:
        images = _are(main["copies"], f" of {main['of']} images")
        return (
            f"{images} as like one as a copy is: no more than chance could give beside the base."
            " Look at them, or give more --images"
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


def _new_in(about: Mapping[str, Any], name: str) -> list[str]:
    """The pictures at which copies begin, of a model that copies others than the base."""
    return list(beyond_base(about, row_of(about, name) or {}))


def _named(files: Sequence[str]) -> str:
    """Names of pictures in brackets; at most NAMED."""
    more = ", ..." if len(files) > NAMED else ""
    return f" ({', '.join(files[:NAMED])}{more})" if files else ""


def _as_base(about: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """That a model copies no more than the base does, if so."""
    if not as_base(about, row):
        return ""
    base = row_of(about, BASE)
    assert base is not None
    return f", no more than by the base ({base['copied']}), which was not trained on them"


def unseen_in(about: Mapping[str, Any], name: str) -> str:
    """What is said of a model that does not copy, or not more than the base."""
    row = row_of(about, name)
    is_like_base = row is not None and as_base(about, row)
    return "copies no more than the base" if is_like_base else "gave no copy"


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
        f" base{held_out}), {_are(hits)} as similar to a training picture as a copy is: by chance, or"
        " as a memory of the base. Such a picture counts as copied only by an image that is more"
        " similar to it than all of these."
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


# files ----------------------------------------------------------------------------------------------


def write_training(run: Run, about: Mapping[str, Any], root: Path) -> None:
    """Keep the result in the run: its value `training`, a table of all training pictures,
    thumbnails and a grid of the most copied ones.
    """
    run.set_meta("training", about)
    write_table(about, run.path / WATCHED[1])
    lines = []
    for k in worst(about):
        one = about["pictures"][k]
        own = picture(root / one["file"])
        own.thumbnail((THUMBNAIL, THUMBNAIL))
        save_png(own, run.path / thumbnail(k))
        beside = [picture(inside(run.path, name)) for name in one["nearest"][:BESIDE]]
        label = f"{one['file']}: {one['state']}, similarity {one['similarity']:.2f}"
        lines.append((label, [own, *beside]))
    if lines:
        title = f"training pictures, and the images of {about['main']} most like each"
        save_png(sheet(title, lines), run.path / GRID)


def write_table(about: Mapping[str, Any], path: Path) -> None:
    """Write all training pictures as CSV: what was seen of each, and which prompts copy it."""
    names = ["file", "caption", "group", "state", "similarity", "margin", "level", "begins"]
    ends = [*(f"copies_{way}" for way in WAYS), *(f"of_{way}" for way in WAYS)]
    ends += ["copies_base", "copied_by"]
    with written(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names, *ends])
        for k, one in enumerate(about["pictures"]):
            ways = [one["ways"].get(way, (0, 0)) for way in WAYS]
            cells = [*(one[name] for name in names), *(w[0] for w in ways), *(w[1] for w in ways)]
            cells += [one.get("base", {}).get("copies"), "; ".join(copied_by(about, k))]
            rows.writerow(marked(cell) if isinstance(cell, str) else cell for cell in cells)


def inside(root: Path, name: str) -> Path:
    """The path of a file that a run names, which must lie in the run.

    Raises InputError for a file outside: a run may come from somebody else.
    """
    file = root / name
    if "\0" in name or not file.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{root} names {name!r:.80}, which is outside of it")
    return file


def thumbnail(number: int) -> str:
    """The path in a run of the thumbnail of a training picture."""
    return f"training/{number:05d}.png"


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
