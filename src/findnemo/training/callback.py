"""A cheap copy test at intervals while a model is trained, without any effect on the training."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.errors import FindnemoError, InputError, first_line
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import picture
from findnemo.files.sizes import within_size
from findnemo.files.writing import atomic_write
from findnemo.images import ImageSettings, generate_many, save_png, sheet
from findnemo.models import load
from findnemo.prompts import TrainingPicture, ordinary, read_training
from findnemo.runtime.notices import notice
from findnemo.seeds import WATCH
from findnemo.training._untouched import bare, keeping_random_state, without_adapters
from findnemo.training.canaries import TABLE, Canaries, heldout_of, read_canaries
from findnemo.training.copies import Gallery, Generation, image_vectors, judge
from findnemo.training.seen import Sensitivity, galleries, seen_in, sensitivity

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

MOST = 1000  # training pictures to compare every image with, at most
MOST_LINES = 64 << 20  # bytes of the file of readings
RUNNING = 2  # consecutive readings with copies after which training should stop
SHOWN = 8  # pictures on a sheet
LOGGED = "memorization"


@dataclass(frozen=True)
class Reading:
    """The result of a copy test at a step.

    `copies`: number of copied training pictures, `copied` their files. `similarity`: the median,
    over the tested pictures, of the largest similarity of an image to each. `control`: that median
    for images that cannot be copies. `canaries`: their detection, None if none are planted.
    `images`: number of images made. `seconds`: duration.
    """

    step: int
    copies: int
    copied: tuple[str, ...]
    similarity: float
    control: float
    images: int
    seconds: float
    canaries: Sensitivity | None = None

    def values(self) -> dict[str, float]:
        """The curves, by the names in the log."""
        found = {
            f"{LOGGED}/copies": float(self.copies),
            f"{LOGGED}/similarity": self.similarity,
            f"{LOGGED}/control": self.control,
        }
        if self.canaries is not None:
            for count, seen in self.canaries.seen.items():
                found[f"{LOGGED}/canaries-{count}"] = seen.rate
        return found

    def to_json(self) -> dict[str, Any]:
        canaries = None if self.canaries is None else self.canaries.to_json()
        return {**vars(self), "copied": list(self.copied), "canaries": canaries}


def _check_whole(**numbers: int) -> None:
    """Raises InputError for anything but a positive integer."""
    for name, value in numbers.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{name} {value!r:.40}: give a whole number, 1 or more")


@dataclass(frozen=True)
class CopyTest:
    """What a reading of `MemorizationCallback` makes and compares.

    `pictures`: number of tested training pictures, drawn by the seed of `images`. `samples`: images
    of a caption; a caption of several pictures gets as many for each. `images`: their steps,
    guidance and seed. `caption`: for pictures that have none (the instance prompt of DreamBooth).
    `controls`: captions of other subjects, whose images are controls. `heldout`: canaries that are
    not planted, as for `read_canaries`. `batch`: images made at once. Raises InputError for numbers
    out of range.

    >>> CopyTest(pictures=20, caption="a photo of sks dog").samples
    2
    """

    pictures: int = 8
    samples: int = 2
    images: ImageSettings = ImageSettings(steps=12, guidance=7.0)
    caption: str | None = None
    controls: Sequence[str] = ordinary(4)
    heldout: str | Path | None = None
    batch: int = 8

    def __post_init__(self) -> None:
        _check_whole(pictures=self.pictures, samples=self.samples, batch=self.batch)
        if isinstance(self.controls, str) or not self.controls:
            raise InputError("controls are captions of other subjects: give a list of at least one")


class MemorizationCallback:
    """A copy test at intervals of a training loop.

    Called with the number of each step, it returns True when training should stop:

        watch = MemorizationCallback(pipeline, "photos", every=250, log=accelerator.log, stop=True)
        for step, batch in enumerate(loader, 1):
            ...
            if watch(step):
                break

    Construct it before the first step, with the pipeline on its device: the images of the model at
    that time, for the same captions and seeds and with every LoRA disabled, are controls. To resume
    a training of all weights from a checkpoint, construct it before the checkpoint is loaded. Every
    reading also makes images for captions of other subjects.

    `pipeline`: with the networks that are trained. Wrappers of DistributedDataParallel,
    `torch.compile` and peft are removed for a reading. With several processes call it in one, and
    pass the result to the others. `source`: the training pictures, as for `read_training`. `every`:
    steps between two readings. `test`: the images of a reading. They are compared with all training
    pictures, at most a thousand. `descriptor`: recognizes copies; None compares pixels.

    `log`: a function of a dict of values and the step (`accelerator.log`), an Accelerator, or a
    SummaryWriter of tensorboard. It gets `memorization/copies`, `/similarity`, `/control`, and, if
    canaries are planted, `/canaries-16`: the share detected at 1 % false positives. `out`: a JSON
    Lines file for readings; a sheet of pictures for each is in a folder next to it. `stop`: whether
    training should stop after two consecutive readings with a copy of a training picture; canaries
    do not count.

    Attributes: `readings`, all so far, and `stopped`; `pictures`, the training pictures that images
    are compared with; `rows`, (caption, sample number) of each image made for the tested ones;
    `canaries`, those that are planted, or None; `model`, the networks in training without their
    wrappers. Training is not affected: modes, gradients, random numbers, autocast and the pipeline
    are restored. A call takes the time of its images, 20 by default, and one more for each canary.
    Raises InputError for numbers out of range and for a source without captions, ModelError for a
    pipeline that findnemo does not support.
    """

    def __init__(
        self,
        pipeline: Any,
        source: str | Path,
        every: int = 250,
        test: CopyTest = CopyTest(),
        descriptor: Descriptor | None = None,
        log: Any = None,
        stop: bool = False,
        out: str | Path | None = None,
    ):
        _check_whole(every=every)
        self.every = every
        self.stop = stop
        self.stopped = False
        self.readings: list[Reading] = []
        self._log = _logging(log)
        self._out = None if out is None else Path(out)
        if self._out is not None and self._out.suffix != ".jsonl":
            raise InputError(f"out {self._out}: readings are JSON Lines, give FILE.jsonl")
        self._descriptor = descriptor
        self._test = test
        self.canaries = _canaries(source, test.heldout)
        seed = test.images.seed
        wanted = _captioned(source, test.caption, self.canaries, seed)
        with keeping_random_state():
            self.pictures, self._gallery = _readable(wanted, descriptor)
            if self.canaries is not None:
                self._galleries = galleries(self.canaries, descriptor)
            asked = min(test.pictures, len(self.pictures))
            self._asked = sorted(random.Random(seed).sample(range(len(self.pictures)), asked))
            self.rows = _rows(
                [str(self.pictures[k].caption) for k in self._asked], test.samples * asked
            )
            self._other = [(prompt, WATCH) for prompt in test.controls]
            self._planted = [(one.caption, WATCH) for one in self.canaries or ()]
            self.model = load(bare(pipeline))
            with without_adapters(self.model.networks):
                self._before = self._made([*self.rows, *self._other])
            self._controls = image_vectors(self._before, descriptor)

    def __call__(self, step: int) -> bool:
        """Take a reading at every `every`th step, once; return whether training should stop.

        If a reading fails (NaN in the weights, a full device or disk), a warning says so and
        training goes on.
        """
        done = bool(self.readings) and self.readings[-1].step == step
        if step % self.every or step <= 0 or done or self.stopped:
            return self.stopped
        try:
            self.read(step)
        except (FindnemoError, OSError) as error:
            notice(f"step {step} of the training: {first_line(error)}")
        last = self.readings[-RUNNING:]
        self.stopped = self.stop and len(last) == RUNNING and all(one.copies for one in last)
        return self.stopped

    def read(self, step: int) -> Reading:
        """Take a reading now, keep it, log it and write it; this never stops training."""
        began = time.monotonic()
        with keeping_random_state():
            images = self._made([*self.rows, *self._other, *self._planted])
            vectors = image_vectors(images, self._descriptor)
            reading = self._judged(step, vectors)
        reading = replace(reading, seconds=round(time.monotonic() - began, 3))
        self.readings.append(reading)
        self._log(reading.values(), step)
        if self._out is not None:
            self._written(self._out, reading, images)
        return reading

    def _made(self, rows: Sequence[tuple[str, int]]) -> list[Image.Image]:
        return generate_many(self.model, rows, self._test.images, self._test.batch)

    def _judged(self, step: int, vectors: Tensor) -> Reading:
        own = len(self.rows)
        other = len(self._other)
        controls = torch.cat([self._controls, vectors[own : own + other]])
        asked = [Generation(prompt, "control", k) for prompt, k in self._other]
        captions = [one.caption for one in self.pictures]
        shown = [Generation(prompt, "own", k) for prompt, k in self.rows]
        known = vectors[: own + other]
        found = judge(self._gallery, captions, [*shown, *asked], known, self._controls)
        copied = tuple(
            one.path.name
            for one, seen_ in zip(self.pictures, found.pictures, strict=True)
            if seen_.state == "copied"
        )
        seen = None
        if self.canaries is not None:
            planted = vectors[own + other :, None]
            seen = sensitivity(self.canaries, *seen_in(self.canaries, planted, *self._galleries))
        return Reading(
            step,
            len(copied),
            copied,
            self._median(vectors[:own]),
            self._median(controls),
            len(vectors),
            0.0,
            seen,
        )

    def _median(self, vectors: Tensor) -> float:
        """The median over the tested pictures of the largest similarity of an image to each."""
        best = self._gallery.similarity(vectors)[:, self._asked].amax(0)
        return round(float(best.double().quantile(0.5)), 4)

    def _written(self, out: Path, reading: Reading, images: Sequence[Image.Image]) -> None:
        there = within_size(out, MOST_LINES).read_bytes() if out.exists() else b""
        with atomic_write(out) as part:
            part.write_bytes(there + json.dumps(reading.to_json()).encode() + b"\n")
        prompts = [prompt for prompt, _ in self.rows]
        shown = self._asked[:SHOWN]
        first = [prompts.index(str(self.pictures[k].caption)) for k in shown]
        page = sheet(
            f"step {reading.step}: {reading.copies} copied",
            [
                ("training pictures", [picture(self.pictures[k].path) for k in shown]),
                ("before training", [self._before[k] for k in first]),
                (f"step {reading.step}", [images[k] for k in first]),
            ],
        )
        save_png(page, out.with_suffix("") / f"step-{reading.step:06}.png")


# tested pictures ----------------------------------------------------------------------------------


def _canaries(source: str | Path, heldout: str | Path | None) -> Canaries | None:
    """The canaries in the folder of the training pictures; None if none are planted."""
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if heldout is None and not (heldout_of(folder) / TABLE).is_file():
        return None
    return read_canaries(folder, heldout)


def _captioned(
    source: str | Path, caption: str | None, canaries: Canaries | None, seed: int
) -> list[TrainingPicture]:
    """Training pictures that have a caption and are no canaries."""
    planted = {one.picture.resolve() for one in canaries or ()}
    files = {one.path.resolve(): one for one in read_training(source)}
    own = [one for path, one in files.items() if path not in planted]
    kept = [replace(one, caption=one.caption or caption) for one in own if one.caption or caption]
    if not kept:
        raise InputError(
            f"{source} holds no pictures with captions, canaries apart: give caption, the prompt"
            " that they are trained with"
        )
    if len(kept) > MOST:
        kept = [kept[k] for k in sorted(random.Random(seed).sample(range(len(kept)), MOST))]
    return kept


def _readable(
    pictures: Sequence[TrainingPicture], descriptor: Descriptor | None
) -> tuple[list[TrainingPicture], Gallery]:
    """The readable pictures with their gallery for the copy test; they are opened one by one."""
    found: list[TrainingPicture] = []
    refused: list[str] = []

    def opened() -> Iterator[Image.Image]:
        for one in pictures:
            try:
                image = picture(one.path)
            except RefusedError as error:
                refused.append(str(error))
                continue
            found.append(one)
            yield image

    gallery = Gallery.of(opened(), descriptor)
    if not found:
        raise InputError(f"none of the training pictures can be read ({refused[0]})")
    if refused:
        notice(f"{len(refused)} training pictures cannot be read ({refused[0]}): left out")
    return found, gallery


def _rows(captions: Sequence[str], count: int) -> list[tuple[str, int]]:
    """(caption, sample number) of `count` images or a few more, as many for each different caption.

    >>> _rows(["a", "b", "a"], 5)
    [('a', 7500), ('a', 7501), ('a', 7502), ('b', 7500), ('b', 7501), ('b', 7502)]
    """
    prompts = list(dict.fromkeys(captions))
    each = -(-count // len(prompts))
    return [(prompt, WATCH + k) for prompt in prompts for k in range(each)]


def _logging(log: Any) -> Callable[[dict[str, float], int], object]:
    """A function of values and step for any kind of log. Raises InputError for an unknown kind."""
    if log is None:
        return lambda values, step: None
    if hasattr(log, "add_scalar"):  # SummaryWriter
        return lambda values, step: [log.add_scalar(name, values[name], step) for name in values]
    taken = getattr(log, "log", log)
    if not callable(taken):
        raise InputError(
            f"log {type(log).__name__} takes no values: give a function of values and step, an"
            " Accelerator, or a SummaryWriter"
        )
    return lambda values, step: taken(values, step)
