"""What the audit of a fine-tune is given: tuned models, training pictures, and the questions for each
model. All is read and checked before any model is loaded.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from findnemo import demo
from findnemo.errors import InputError, StoppedError
from findnemo.files.digests import sha256
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import from_file
from findnemo.images import ImageSettings
from findnemo.metrics import Judges
from findnemo.models import lora_checkpoints, model_checkpoints, of_strength
from findnemo.prompts import Prompt, TrainingPicture, TrainingSet, ordinary, read_training
from findnemo.runs.fine_tunes import (
    OWN,
    TWINS,
    Question,
    TrainingSubject,
    folder_of_variant,
    relative,
)
from findnemo.runs.tuned import BASE, CLEANED
from findnemo.runs.wording import count, word_list
from findnemo.seeds import CONFIRMED
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import (
    IMAGES,
    images_of,
    judges_of,
    named_judges,
    place_of,
    read_table,
    warn_unjudged,
)
from findnemo.tasks.options import Captions, Detecting, FineTune, Pictures, Source
from findnemo.training import MAIN, Canaries, Gallery, image_vectors, images_needed, read_canaries
from findnemo.training.canaries import TABLE as CANARIES
from findnemo.training.canaries import heldout_of

ASKED = 100  # captions of training pictures to make images for, at most
LEAST = 16  # least number of images for each kind of prompt
CONTROLS = 8  # captions of other subjects
EACH = 2  # images of a canary's caption
MORE = 4  # times as many images of a training caption confirm a model that was chosen by some
FURTHER = ", further images"  # of a model, in the name of their folder
NAMED = 3  # pictures listed in a note


@dataclass(frozen=True)
class Candidate:
    """A tuned model to judge, as it is loaded."""

    name: str
    source: Source
    checkpoint: str | None = None
    strength: float | None = None


@dataclass(frozen=True)
class Material:
    """The input of a fine-tune audit, read before any model is loaded.

    `root`: the folder that names of training pictures are relative to. `notes`: what a user should
    know. `digest`: of the pictures, their captions and the questions. `suffix`: of the names of the
    folders with images.
    """

    subject: TrainingSubject
    root: Path
    questions: tuple[Question, ...]
    settings: ImageSettings
    notes: tuple[str, ...]
    digest: str
    suffix: str = ""

    def folder(self, out: Path, name: str) -> Path:
        """The folder of a model's images."""
        return folder_of_variant(out, f"{name}{self.suffix}")

    def further(self) -> Material:
        """The input for further images of a model that was chosen: other seeds, and `MORE` times as
        many images of the prompts that a verdict is about, at least as many as no copy takes to be
        evidence.
        """
        asked = [one for one in self.questions if one.kind not in TWINS]
        kinds = {one.kind for one in asked}
        first = next(kind for kind in MAIN if kind in kinds)
        least = math.ceil(
            images_needed(self.subject.rate) / sum(one.kind == first for one in asked)
        )
        further = (
            replace(
                one,
                first=CONFIRMED,
                images=max(MORE * one.images, least) if one.kind == first else one.images,
            )
            for one in asked
        )
        return replace(self, questions=tuple(further), suffix=FURTHER)

    def questions_for(self, candidate: Candidate) -> list[Question]:
        """The questions for a model.

        The base gets no questions on other subjects and canaries: these show what tuning did.
        """
        kinds = OWN if candidate.name == BASE else (*OWN, "control", *TWINS)
        return [question for question in self.questions if question.kind in kinds]


def candidates(source: Source, tuned: FineTune) -> list[Candidate]:
    """The base, then the tuned models: checkpoints in order, each at each strength.

    Raises InputError unless either a LoRA or a tuned model is given, and for invalid strengths.

    >>> [c.name for c in candidates(Source("demo", lora="a.safetensors:0.5"), FineTune("photos"))]
    Traceback (most recent call last):
    findnemo.errors.InputError: no LoRA a.safetensors: give a .safetensors file, or a directory with one
    """
    check(source, tuned)
    base = replace(source, lora=None)
    if tuned.tuned is not None:
        found = [
            Candidate(_own(one.name), _fitting(replace(base, place=one.place)), one.name)
            for one in model_checkpoints(tuned.tuned)
        ]
        return [Candidate(BASE, _fitting(base)), *found]
    place, strength = of_strength(str(source.lora))
    scales = [strength] if tuned.lora_scale is None else _scales(tuned.lora_scale)
    checkpoints = lora_checkpoints(place)
    several = Path(place).is_dir()
    loras = [
        Candidate(
            _name(_own(one.name) if several else "LoRA", scale),
            replace(base, lora=f"{one.place}:{scale:g}"),
            one.name if several else None,
            scale,
        )
        for one in checkpoints
        for scale in scales
    ]
    return [Candidate(BASE, base), *loras]


def check(source: Source, tuned: FineTune) -> None:
    """Raises InputError for options that do not go together, or without training pictures."""
    if tuned.train_images is None:
        raise InputError("give --train-images DIR, the pictures that the model is trained on")
    if not 0 < tuned.copy_rate < 1:
        raise InputError(f"--copy-rate {tuned.copy_rate} is not between 0 and 1")
    if (source.lora is None) == (tuned.tuned is None):
        raise InputError(
            "--train-images takes either --lora, on MODEL, or --tuned, a model tuned from MODEL: it"
            " is what is held against the base"
        )
    if tuned.lora_scale is None:
        return
    if tuned.tuned is not None:
        raise InputError("--lora-scale is the strength of a LoRA: leave it out with --tuned")
    if of_strength(str(source.lora))[1] != 1.0:
        raise InputError(f"--lora {source.lora} has a strength, and so has --lora-scale: give one")
    _scales(tuned.lora_scale)


def _fitting(source: Source) -> Source:
    """A source with only the options that apply to it: base and tuned model may differ in kind.

    >>> _fitting(Source("owner/name", revision="main", config="base")).config is None
    True
    """
    path = Path(str(source.place))
    if path.is_file():
        return replace(source, revision=None, weights_variant=None)
    return replace(source, config=None, revision=None if path.is_dir() else source.revision)


def _own(name: str) -> str:
    """The name of a checkpoint, changed if findnemo uses that name itself."""
    return f"checkpoint {name}" if name in (BASE, CLEANED) else name


def _name(checkpoint: str, scale: float) -> str:
    """The name of a LoRA at a strength; at 1 that of the LoRA, whatever else is compared."""
    return checkpoint if scale == 1 else f"{checkpoint} x {scale:g}"


def _scales(text: str) -> list[float]:
    """Strengths from text, sorted, without repeats.

    >>> _scales("1,0.6, 0.8")
    [0.6, 0.8, 1.0]
    """
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(math.isfinite(value) and value for value in found):
        raise InputError(
            f"--lora-scale {text!r:.40} names no strengths: give numbers such as 0.6,0.8,1"
        )
    return found


def material(
    source: Source, tuned: FineTune, detecting: Detecting, pictures: Pictures, listener: Listener
) -> Material:
    """Read the training pictures, and choose the questions for each model.

    Unreadable pictures are left out and reported. Raises InputError for a source without pictures
    or captions, and for options that do not fit.
    """
    training = read_training(tuned.train_images, tuned.column)
    place = Path(tuned.train_images)
    root = (place if place.is_dir() else place.parent).resolve()
    judges = judges_of(place_of(source), named_judges(pictures))
    canaries = _canaries(place)
    if canaries is not None:
        planted = {one.picture.resolve() for one in canaries}
        own = tuple(one for one in training if one.path.resolve() not in planted)
        training = replace(training, pictures=own)
    listener.say(f"looking at {count(len(training), 'training picture')} of {tuned.train_images}")
    warn_unjudged("fine-tune", place_of(source), named_judges(pictures), listener)
    kept, gallery, broken = _gallery(training, judges, listener)
    held_out = torch.empty(0, gallery.views.shape[2])
    if tuned.holdout_images is not None:
        files = [one.path for one in read_training(tuned.holdout_images)]
        held_out = image_vectors(map(_opened, files), judges.descriptor)
    subject = TrainingSubject(kept, gallery, judges, held_out, tuned.copy_rate, canaries)
    given: list[Prompt] = [] if tuned.prompts is None else list(read_table(tuned.prompts, listener))
    controls = _controls(source, detecting, listener)
    readable = replace(training, pictures=tuple(kept))
    questions, drawn = questions_of(
        readable, [p.text for p in given], controls, pictures.images, tuned
    )
    questions += _of_canaries(canaries)
    notes = (*training.notes, *broken, *_twins(subject), *_repeated(kept, root), *drawn)
    settings = images_of(source, pictures, detecting.seed or 0)
    digest = _digest(kept, questions)
    return Material(subject, root, tuple(questions), settings, notes, digest)


def _digest(pictures: Sequence[TrainingPicture], questions: Sequence[Question]) -> str:
    """A digest of a training set and its questions."""
    found = hashlib.sha256(repr(list(questions)).encode(errors="surrogatepass"))
    for one in pictures:
        content = sha256(one.path)
        found.update(f"{one.caption!r} {content}\n".encode(errors="surrogatepass"))
    return found.hexdigest()[:32]


def _canaries(folder: Path) -> Canaries | None:
    """The canaries planted in a training folder; None if there are none.

    Raises InputError for a damaged table of canaries.
    """
    if not folder.is_dir() or not (heldout_of(folder) / CANARIES).is_file():
        return None
    return read_canaries(folder)


def _of_canaries(canaries: Canaries | None) -> list[Question]:
    """Questions with the captions of canaries and of their twins."""
    if canaries is None:
        return []
    captions = [(one.caption, one.twin_caption) for one in canaries]
    asked = zip(TWINS, zip(*captions, strict=True), strict=True)
    return [Question(text, kind, EACH) for kind, texts in asked for text in texts]


def _controls(source: Source, detecting: Detecting, listener: Listener) -> list[str]:
    """Captions of other subjects: the first hold-out captions, else the demo's or findnemo's."""
    if detecting.holdout is not None:
        return [p.text for p in read_table(Captions(detecting.holdout), listener)][:CONTROLS]
    own = demo.unrelated() if place_of(source) in demo.MODELS else ordinary()
    return list(own[:CONTROLS])


def _opened(path: Path) -> Any:
    try:
        return from_file(path)
    except RefusedError as refused:
        raise InputError(f"{path}: {refused}") from None


def _gallery(
    training: TrainingSet, judges: Judges, listener: Listener
) -> tuple[list[TrainingPicture], Gallery, list[str]]:
    """The readable pictures, with their gallery for the copy test, and notes on the others."""
    kept: list[TrainingPicture] = []
    broken: list[str] = []

    def readable() -> Iterator[Any]:
        for k, one in enumerate(training):
            listener.progress("training pictures", k, len(training))
            if listener.stop():
                raise StoppedError(f"{training.source}: stopped; nothing was written")
            try:
                image = from_file(one.path)
            except RefusedError as refused:
                broken.append(f"{one.path.name} ({refused})")
                continue
            kept.append(one)
            yield image

    gallery = Gallery.of(readable(), judges.descriptor)
    listener.progress("training pictures", len(training), len(training))
    if not kept:
        raise InputError(
            f"none of {count(len(training), 'picture')} of {training.source} can be read: {broken[0]}"
        )
    notes = [
        f"{training.source}: left out {count(len(broken), 'picture')} that findnemo cannot read:"
        f" {', '.join(broken[:NAMED])}{', ...' if len(broken) > NAMED else ''}"
    ]
    return kept, gallery, notes if broken else []


def _repeated(pictures: Sequence[TrainingPicture], root: Path) -> list[str]:
    """Which folder an epoch shows most often, if it shows others less.

    >>> often = TrainingPicture(Path("/photos/20_works/a.png"), "a", 20)
    >>> seldom = TrainingPicture(Path("/photos/2_scenes/b.png"), "b", 2)
    >>> _repeated([often, seldom], Path("/photos"))
    ['an epoch shows the pictures in 20_works 20 times, others 2 times: what is shown more often is copied sooner']
    >>> _repeated([often, often], Path("/photos"))
    []
    """
    shown = sorted({one.repeats for one in pictures})
    if len(shown) < 2:
        return []
    most = {
        Path(relative(one.path, root)).parent.name for one in pictures if one.repeats == shown[-1]
    }
    others = f"{shown[0]} times" if len(shown) == 2 else f"{shown[0]} to {shown[-2]} times"
    return [
        f"an epoch shows the pictures in {word_list(sorted(most))} {shown[-1]} times, others {others}:"
        " what is shown more often is copied sooner"
    ]


def _twins(subject: TrainingSubject) -> list[str]:
    """A note on identical training pictures, the commonest cause of copies."""
    groups: dict[int, list[str]] = {}
    for group, one in zip(subject.gallery.groups, subject.pictures, strict=True):
        groups.setdefault(group, []).append(one.path.name)
    twins = [names for names in groups.values() if len(names) > 1]
    if not twins:
        return []
    some = "; ".join(" = ".join(names[:NAMED]) for names in twins[:NAMED])
    many = sum(map(len, twins))
    return [
        f"{many} training pictures are {count(len(twins), 'picture')} several times ({some}): the commonest"
        " cause of copies"
    ]


def questions_of(
    training: TrainingSet,
    given: Sequence[str],
    controls: Sequence[str],
    images: int | None,
    tuned: FineTune,
) -> tuple[list[Question], list[str]]:
    """The questions for each model, and a note if captions were drawn at random.

    They are captions, trigger words, further captions, the empty prompt and other subjects. Each
    caption is asked once, however many pictures have it. `images`: number for a caption, at least
    4; by default so many that the absence of copies is evidence. Raises InputError for a set
    without captions and trigger words.
    """
    own = list(dict.fromkeys(p.caption for p in training if p.caption))
    most = ASKED if tuned.limit is None else tuned.limit
    notes = []
    if len(own) > most:
        notes = [f"{most} of {len(own):,} captions are asked, drawn by chance (--limit)"]
        chosen = set(random.Random(0).sample(own, most))
        own = [caption for caption in own if caption in chosen]
    triggers = list(training.triggers)
    own = [caption for caption in own if caption not in triggers]
    kinds: dict[str, list[str]] = {"own": own, "trigger": triggers}
    first = "own" if own else "trigger" if triggers else "given"  # the kind that a verdict is about
    kinds |= {"given": list(given), "none": [""], "control": list(controls)}
    if not any(kinds[kind] for kind in ("own", "trigger", "given")):
        raise InputError(
            f"no picture of {training.source} has a caption, and no folder names a trigger word: give"
            " --prompts FILE with captions for the model"
        )
    seen: set[str] = set()
    questions = []
    asking = len(own) or len(kinds["trigger"]) or len(given)
    usual = max(IMAGES, math.ceil(images_needed(tuned.copy_rate) / asking))
    for kind, texts in kinds.items():
        new = [text for text in dict.fromkeys(texts) if text not in seen]
        seen |= set(new)
        each = usual if images is None else max(images, 1)
        if images is None and new and kind != first:
            each = max(IMAGES, math.ceil(LEAST / len(new)))
        questions += [Question(text, kind, each) for text in new]
    return questions, notes
