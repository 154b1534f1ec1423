"""Find the copies of a fine-tune: compare finished images of the base model and of each tuned model
with all training pictures.

A variant is a model at one checkpoint and one strength. Its images are in a run directory of its
own in `RUN/variants`; the result of the copy test on all variants is the run's `training`.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo import training
from findnemo.edits import deactivate
from findnemo.errors import InputError
from findnemo.files.marks import marked
from findnemo.files.originals import picture
from findnemo.files.writing import atomic_write
from findnemo.images import ImageSettings, generate_many, png, save_png, sheet
from findnemo.metrics import Judges
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.prompts import Prompt, TrainingPicture
from findnemo.runs.audit import remember_source
from findnemo.runs.stages import Progress, Stage, run_stage
from findnemo.runs.store import GRID, MODELS, THUMBNAILS, VARIANTS, WATCHED, Caption, Run
from findnemo.runs.table import enter
from findnemo.runs.tuned import BASE, FREE, beside, copied_by, sentence, taught_so_far, worst
from findnemo.runs.work import StageAnswer, attempted, commit
from findnemo.runs.workers import Pool, Unit
from findnemo.runs.worklist import groups, list_open
from findnemo.seeds import TRAINED
from findnemo.training.seen import galleries, seen_in

if TYPE_CHECKING:
    from PIL import Image

STAGE = "pictures"
LOOKS = 6  # captions of which models are shown side by side
BESIDE = 3  # generations next to each
THUMBNAIL = 256
BESIDE_COSTS = ("subject", "a_clip")  # of the base, beside those of a confirmed model
# columns of the table that are values of a picture
TABLED = ("file", "caption", "group", "state", "similarity", "margin", "level", "begins", "cause")
OWN = ("own", "trigger", "given", "none")  # prompts that ask for the training pictures
JUDGED = (*OWN, "control")  # prompts whose images are compared with the training pictures
TWINS = ("canary", "twin")  # captions of planted pictures, and of their twins that were held out


@dataclass(frozen=True)
class Question:
    """A prompt for a model, with its kind and the number of images to make.

    `kind`: a kind of `training.Generation`, or one of TWINS. `first`: number of the first sample.
    """

    prompt: str
    kind: str
    images: int
    first: int = TRAINED


@dataclass(frozen=True)
class VariantImages:
    """The generations of a variant, with the file of each. `failed`: prompts without an image."""

    generations: tuple[training.Generation, ...]
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
) -> VariantImages:
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
    if others := {q.first for q in questions} - {TRAINED}:
        kept["first"] = sorted(others)
    with Run.create(folder, kept) as run:
        remember_source(run, model)
        prompts = [Prompt(q.prompt, row, q.kind) for row, q in enumerate(questions, 1)]
        enter(run, prompts)
        samples = {q.prompt: range(q.first, q.first + q.images) for q in questions}
        open_, count = list_open(run, STAGE)
        units = (Unit(tuple((c, samples[c.text]) for c in group)) for group in groups(run))
        step = partial(_made, settings=settings, neurons=neurons)
        total = len(questions)
        stage = Stage(STAGE, step, units, count, partial(commit, run, STAGE), total, total - open_)
        run_stage(stage, pool, progress, stop)
    return stored_images(folder, questions)


def stored_images(folder: Path, questions: Sequence[Question]) -> VariantImages:
    """The stored images of a variant, in the order of the questions."""
    generations: list[training.Generation] = []
    files: list[Path] = []
    failed: list[str] = []
    with Run.open(folder) as run:
        found = {c.text: c for c in run.captions(stage=STAGE)}
    for question in questions:
        if (caption := found.get(question.prompt)) is None:
            failed.append(question.prompt)
            continue
        for k in range(caption.typed_result(STAGE)["images"]):
            generations.append(training.Generation(question.prompt, question.kind, k))
            files.append(folder / _file(caption, k))
    return VariantImages(tuple(generations), tuple(files), tuple(failed))


def _file(caption: Caption, sample: int) -> str:
    return f"images/{caption.slug}/{sample:03d}.png"


def _made(
    model: Model,
    items: Sequence[tuple[Caption, range]],
    settings: ImageSettings,
    neurons: NeuronSet,
) -> list[StageAnswer]:
    def one(caption: Caption, samples: range) -> StageAnswer:
        rows = [(caption.text, sample) for sample in samples]
        with deactivate(model, neurons):
            images = generate_many(model, rows, settings)
        files = {_file(caption, k): png(image) for k, image in enumerate(images)}
        return StageAnswer({"images": len(rows), "evaluations": len(rows) * settings.passes}, files)

    return [attempted(model, partial(one, caption, samples)) for caption, samples in items]


# judgement ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSubject:
    """What all variants are judged by: training pictures, and held-out pictures as vectors (H, D).

    `canaries`: pictures planted in the training set, if any. They are judged separately.
    """

    pictures: Sequence[TrainingPicture]
    gallery: training.Gallery
    judges: Judges
    held_out: Tensor
    rate: float = training.RATE
    canaries: training.Canaries | None = None

    @cached_property
    def planted(self) -> tuple[training.Gallery, training.Gallery]:
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
    test sees. `base`: the base model, with images for the same prompts and seeds; None for the base.
    `chosen_by`: the variant by whose fewer images this model was chosen, and is confirmed with
    others; None if it was not.
    """

    name: str
    checkpoint: str | None
    strength: float | None
    shown: VariantImages
    vectors: Tensor
    judgement: training.Judgement
    costs: Mapping[str, float]
    seen: training.Sensitivity | None = None
    base: Variant | None = None
    chosen_by: Variant | None = None

    @property
    def rows(self) -> list[int]:
        """Numbers of the judged generations among all of the variant."""
        return self.shown.rows(*JUDGED)


def judge_variant(
    subject: TrainingSubject,
    shown: VariantImages,
    base: Variant | None,
    name: str,
    checkpoint: str | None = None,
    strength: float | None = None,
) -> Variant:
    """Run the copy test on a variant. `base`: the base model, with images for the same prompts and
    seeds; None for itself.
    """
    vectors = training.image_vectors(shown.images(), subject.judges.descriptor)
    asking = shown.rows(*JUDGED)
    of_base = None if base is None else base.vectors
    controls = [part for part in (subject.held_out, of_base) if part is not None and len(part)]
    judgement = training.judge(
        subject.gallery,
        subject.captions,
        [shown.generations[k] for k in asking],
        vectors[asking],
        torch.cat(controls) if controls else None,
    )
    found = costs(subject, shown, vectors, judgement)
    seen = None if base is None else _sensitivity(subject, shown, vectors)
    return Variant(name, checkpoint, strength, shown, vectors, judgement, found, seen, base)


def _sensitivity(
    subject: TrainingSubject, shown: VariantImages, vectors: Tensor
) -> training.Sensitivity | None:
    """How many canaries a variant reproduces; None without canaries."""
    if subject.canaries is None or not shown.rows(*TWINS):
        return None
    rows: dict[str, list[int]] = {}
    for k in shown.rows(*TWINS):
        rows.setdefault(shown.generations[k].prompt, []).append(k)
    captions = [one.caption for one in subject.canaries]
    captions += [one.twin_caption for one in subject.canaries]
    stacked = torch.stack([vectors[rows[caption]] for caption in captions])
    return training.sensitivity(
        subject.canaries, *seen_in(subject.canaries, stacked, *subject.planted)
    )


def costs(
    subject: TrainingSubject, shown: VariantImages, vectors: Tensor, judgement: training.Judgement
) -> dict[str, float]:
    """How much of the subject a variant shows, over generations of the training captions.

    `subject`: the median similarity to the nearest training picture, of generations that are no
    copies. `subject_low`, `subject_high`: its 95 % interval, by order statistics; it takes six
    generations. `left`: how many of these there are. `diversity`: 1 minus the mean similarity of two
    images of one prompt. `a_clip`: the median fit to the caption, if there is a CLIP.
    `a_clip_other`: the same images' fit to captions of other subjects. Values that cannot be
    measured are left out.
    """
    own = shown.rows("own") or shown.rows("trigger") or shown.rows("given")
    values: dict[str, float] = {}
    asking = shown.rows(*JUDGED)
    copies = {asking[s.generation] for s in judgement.sightings if s.copy}
    if fair := [k for k in own if k not in copies]:
        nearest = subject.gallery.similarity(vectors[fair]).amax(1)
        values |= {"subject": float(nearest.median()), "left": len(fair)} | _interval(nearest)
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


def _interval(values: Tensor) -> dict[str, float]:
    """The interval of a median; empty for too few values."""
    from scipy.stats import quantile_test

    found = quantile_test(values.double().numpy(), p=0.5).confidence_interval(0.95)
    ends = {"subject_low": float(found.low), "subject_high": float(found.high)}
    return {} if any(map(math.isnan, ends.values())) else ends


def _diversities(shown: VariantImages, vectors: Tensor, own: Sequence[int]) -> list[float]:
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
    subject: TrainingSubject,
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
    base = next((v for v in variants if v.name == BASE), None)
    rows = [_of_variant(v, subject, root) for v in variants]
    for row in rows:
        row["taught"] = taught_so_far(rows, row)
    known = next(row["taught"] for row in rows if row["name"] == main)
    causes = (
        [None] * len(subject.pictures) if base is None else of_main.judgement.causes(base.judgement)
    )
    first = {g: relative(subject.pictures[k].path, root) for g, k in _firsts(subject).items()}
    causes = [
        "training" if why and first[group] in known else why
        for why, group in zip(causes, subject.gallery.groups, strict=True)
    ]
    pictures = [
        {
            "file": relative(one.path, root),
            "caption": one.caption,
            "group": subject.gallery.groups[k],
            **_of_picture(of_main, k),
            **_beside_base(base, k),
            "begins": _begins(variants, rows, k),
            "cause": causes[k],
        }
        for k, one in enumerate(subject.pictures)
    ]
    about = {
        "main": main,
        "rate": subject.rate,
        "needed": training.images_needed(subject.rate),
        "descriptor": subject.judges.descriptor is not None,
        "held_out": subject.held_out is not None and len(subject.held_out) > 0,
        "pictures": pictures,
        "variants": rows,
        "notes": list(notes),
        "begun": list(begun),
    }
    return {"sentence": sentence(about), **about}


def _firsts(subject: TrainingSubject) -> dict[int, int]:
    """Each group of equal pictures, with the number of its first picture."""
    first: dict[int, int] = {}
    for k, group in enumerate(subject.gallery.groups):
        first.setdefault(group, k)
    return first


def _begins(
    variants: Sequence[Variant], rows: Sequence[Mapping[str, Any]], number: int
) -> str | None:
    """The first model that copies a picture, of the base and those that copy more than it."""
    for variant, row in zip(variants, rows, strict=True):
        is_more = variant.name == BASE or row["verdict"] not in FREE
        if is_more and variant.judgement.copies(number):
            return variant.name
    return None


def _copied_by(subject: TrainingSubject, variant: Variant, root: Path) -> dict[str, dict[str, int]]:
    """Names of the pictures that a variant copies, one of each group, and in how many images; and
    of those that it was taught: that it copies more often than the base explains.
    """
    first = _firsts(subject)
    found = variant.judgement
    taught = [] if variant.base is None else found.taught(variant.base.judgement)
    return {
        name: {
            relative(subject.pictures[first[group]].path, root): found.copies(first[group])
            for group in groups
        }
        for name, groups in (("copies_of", found.of("copied")), ("taught", taught))
    }


def relative(path: Path, root: Path) -> str:
    """The name of a training picture relative to `root`; only its file name if it is elsewhere."""
    full = path.resolve()
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else path.name


def _beside_base(base: Variant | None, number: int) -> dict[str, Any]:
    """How many images of the base copy a picture, and the one most like it."""
    if base is None:
        return {}
    of = sum(of for copies, of in base.judgement.pictures[number].ways.values() if copies)
    nearest = _nearest(base, number)[:1]
    return {"base": {"copies": base.judgement.copies(number), "of": of, "nearest": nearest}}


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
    return [_within(variant, file) for file in files]


def _within(variant: Variant, file: Path) -> str:
    """The path in the run of an image of a variant: variants/NAME/images/SLUG/000.png."""
    return f"{VARIANTS}/{file.relative_to(variant.shown.files[0].parents[3]).as_posix()}"


def _of_variant(variant: Variant, subject: TrainingSubject, root: Path) -> dict[str, Any]:
    found = variant.judgement
    copies, of = found.rate()
    low, high = training.share(copies, of)
    said = found.verdict(subject.rate, None if variant.base is None else variant.base.judgement)
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
        "looks": _looks(variant.chosen_by or variant),
        **variant.costs,
        **_of_canaries(variant.chosen_by or variant),
        **_copied_by(subject, variant, root),
        **_confirmed(variant, subject, root),
    }


def _confirmed(variant: Variant, subject: TrainingSubject, root: Path) -> dict[str, Any]:
    """What a model was chosen by, and what the base gives for the images that confirm it."""
    if variant.chosen_by is None or variant.base is None:
        return {}
    first = _of_variant(variant.chosen_by, subject, root)
    kept = {name: first[name] for name in ("verdict", "copied", "copies", "of")}
    copies, of = variant.base.judgement.rate()
    base = {"copied": len(variant.base.judgement.of("copied")), "copies": copies, "of": of}
    costs = {name: variant.base.costs[name] for name in BESIDE_COSTS if name in variant.base.costs}
    return {"chosen_by": kept, "beside": base | costs}


def _looks(variant: Variant) -> list[str]:
    """Paths in the run of the first image of a few captions from all over, the same for all
    variants.
    """
    shown = variant.shown
    own = shown.rows("own") or shown.rows("trigger") or shown.rows("given")
    first = [k for k in own if shown.generations[k].sample == 0]
    every = max(1, -(-len(first) // LOOKS))
    return [_within(variant, shown.files[k]) for k in first[::every]]


def _of_canaries(variant: Variant) -> dict[str, Any]:
    """How many canaries are seen, by repeats an epoch: [hits, canaries]."""
    if variant.seen is None:
        return {}
    return {"canaries": {str(n): [one.hits, one.of] for n, one in variant.seen.seen.items()}}


# files ----------------------------------------------------------------------------------------------


def write_training(path: Path, about: Mapping[str, Any], root: Path) -> None:
    """Write the result into a run directory: a table of all training pictures, thumbnails, a grid of
    the most copied ones, and the models side by side.
    """
    write_table(about, path / WATCHED[1])
    lines = []
    for k in worst(about):
        one = about["pictures"][k]
        own = picture(root / one["file"])
        own.thumbnail((THUMBNAIL, THUMBNAIL))
        save_png(own, path / thumbnail(k))
        like = [picture(inside(path, name)) for name in one["nearest"][:BESIDE]]
        why = f" ({one['cause']})" if one.get("cause") else ""
        label = f"{one['file']}: {one['state']}{why}, similarity {one['similarity']:.2f}"
        lines.append((label, [own, *like]))
    if lines:
        title = f"training pictures, and the images of {about['main']} most like each"
        save_png(sheet(title, lines), path / GRID)
    if models := beside(about):
        rows = [(m["name"], [picture(inside(path, f)) for f in m["looks"]]) for m in models]
        title = "images of the same noise, a training caption each: what is left of the subject"
        save_png(sheet(title, rows), path / MODELS)


def write_table(about: Mapping[str, Any], path: Path) -> None:
    """Write all training pictures as CSV: what was seen of each, and which prompts copy it."""
    ways = [*(f"copies_{way}" for way in training.WAYS), *(f"of_{way}" for way in training.WAYS)]
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*TABLED, *ways, "copies_base", "copied_by"])
        for k, one in enumerate(about["pictures"]):
            counts = [one["ways"].get(way, (0, 0)) for way in training.WAYS]
            cells = [
                *(one.get(name) for name in TABLED),
                *(copies for copies, _ in counts),
                *(of for _, of in counts),
                one.get("base", {}).get("copies"),
                "; ".join(copied_by(about, k)),
            ]
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
    return f"{THUMBNAILS}/{number:05d}.png"
