"""What the app answers with: plain functions of what is shown and what is chosen.

They ask runs and the API, and compute nothing.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo import export as exports
from findnemo.app.jobs import Tell
from findnemo.app.subject import (
    NO_CAPTION,
    Subject,
    caption_of,
    captions,
    numbered,
    run_images,
    sheet,
    training_image,
)
from findnemo.app.text import command, escaped, note, numbers, short, whole
from findnemo.edits import deactivate
from findnemo.errors import InputError
from findnemo.images import generate
from findnemo.localization import Localization, localize
from findnemo.models import cut
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.deltas import score
from findnemo.runs import (
    BAD,
    STANDINGS,
    Caption,
    Run,
    neurons_of,
    row,
    standing,
    state,
    switched_off,
)
from findnemo.runs.overview import BEFORE_AFTER
from findnemo.runs.standing import meaning, said, z_scores

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 10_000  # characters of a caption that is typed
SHOWN = 500  # captions in the table and the list
FACTORS = (-1.0, 1.0)
SEEDS = 2**31


@dataclass(frozen=True)
class Who:
    """Which session asks, and its epoch (see `Jobs`)."""

    session: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class Chosen:
    """What a session works on: a caption with the neurons found for it and their z-scores.

    All that is kept for a session.
    """

    caption: str = ""
    neurons: NeuronSet = EMPTY
    z: Mapping[str, float] = field(default_factory=dict)


# captions of a run --------------------------------------------------------------------------------


def _stands(word: str, caption: Caption) -> bool:
    return standing(caption) == word


FILTERS: dict[str, Callable[[Caption], bool]] = {
    "all": lambda caption: True,
    "memorized": lambda caption: state(caption) == "memorized",
    "not gone": lambda caption: standing(caption) in BAD,
    **{word: partial(_stands, word) for word in STANDINGS},
    "suspected": lambda caption: state(caption) == "suspected",
}
SORTS: dict[str, Callable[[Caption], Any]] = {
    "row": lambda c: c.row,
    "highest score": lambda c: math.inf if c.score is None else -c.score,
    "most neurons": lambda c: -len(neurons_of(c)),
    "text": lambda c: c.text.casefold(),
}
COLUMNS = ("row", "caption", "type", "verdict", "score", "copies before", "copies after", "neurons")


def matching(subject: Subject, search: str, kept: str, sort: str) -> list[Caption]:
    """The captions that hold `search`, one of FILTERS lets through, in
    the order of one of SORTS.
    """
    if kept not in FILTERS or sort not in SORTS:
        raise InputError(
            f"no filter {kept!r} or order {sort!r}: use {', '.join(FILTERS)}; {', '.join(SORTS)}"
        )
    wanted = " ".join(search.split()).casefold()
    found = [
        c
        for c in captions(subject)
        if wanted in " ".join(c.text.split()).casefold() and FILTERS[kept](c)
    ]
    return sorted(found, key=SORTS[sort])


def table(found: Sequence[Caption]) -> list[list[Any]]:
    """Rows of COLUMNS."""
    rows = []
    for caption in found[:SHOWN]:
        values = row(caption)
        names = ("score", "copies_before", "copies_after", "neurons")
        measured = [values[name] for name in names]
        texts = [short(caption.text), short(caption.type or "", 12), said(caption)]
        rows.append([caption.row, *texts, *measured])
    return rows


def counted(found: Sequence[Caption]) -> str:
    more = f"; the first {SHOWN} are shown: search for others" if len(found) > SHOWN else ""
    return _count(found, "caption") + more


def names(found: Iterable[Caption]) -> list[tuple[str, int]]:
    """(label, id) of captions, for a list to choose from."""
    return [(f"{c.row}: {short(c.text)}", c.id) for c in list(found)[:SHOWN]]


def clicked(subject: Subject, cells: Sequence[Any]) -> int:
    """The id of the caption that a row of the table stands for, whatever order
    the browser shows it in.
    """
    number, *shown = [str(cell) for cell in cells[:2]] or [""]
    for id_, text in numbered(subject, number):
        if [short(text)] == shown:
            return id_
    raise InputError(NO_CAPTION)


@dataclass(frozen=True)
class Detail:
    """One caption of a run.

    `title`, `about`: HTML. `before`, `after`: the audit's images, the same seeds in the same order.
    """

    chosen: Chosen
    title: str
    about: str
    before: list[Image.Image]
    after: list[Image.Image]
    training: Image.Image | None
    sheet: Image.Image | None


def detail(subject: Subject, id_: int | None) -> Detail:
    """Everything that the run shows of one caption. Raises InputError if it has no such caption."""
    caption = caption_of(subject, id_)
    values = row(caption)
    chosen = Chosen(caption.text, neurons_of(caption), z_scores(caption))
    images = run_images(subject, caption)
    about = [
        ("row", caption.row),
        ("type", caption.type),
        ("state", state(caption)),
        *_measured(caption),
        ("error", values["error"]),
        _listed(subject, chosen),
    ]
    return Detail(
        chosen,
        title=whole(caption.text),
        about=numbers(about),
        **images,
        training=training_image(subject, caption),
        sheet=sheet(subject, caption),
    )


def _measured(caption: Caption) -> Iterator[tuple[str, Any]]:
    """How a caption stands and what was measured of it, as terminal and report call it."""
    values = row(caption)
    yield "verdict", f"{said(caption)}: {meaning(caption)}"
    yield "memorization score", values["score"]
    yield "threshold (tau)", values["tau"]
    for measured in BEFORE_AFTER:
        before, after = measured.of(caption) or (None, None)
        told = [
            f"{value:.4f} {when}"
            for value, when in ((before, "before"), (after, "after"))
            if value is not None
        ]
        yield measured.label, ", ".join(told) or None
    yield "U-Net evaluations", values["evaluations"]


# neurons ------------------------------------------------------------------------------------------


def layers(subject: Subject) -> list[tuple[str, str]]:
    """(label, name) of the value layers in forward order."""
    return [
        (f"layer {k}: {name} ({width} neurons)", name)
        for k, (name, width) in enumerate(subject.model.widths("all").items(), 1)
    ]


def ticks(subject: Subject, chosen: Chosen) -> list[tuple[str, str]]:
    """(label, `layer:index`) of the neurons of a caption, with their
    z-scores where they are known.
    """
    number = {name: k for k, name in enumerate(subject.model.widths("all"), 1)}
    z = {key: f", z = {value:.1f}" for key, value in chosen.z.items()}
    return [
        (f"layer {number.get(name, name)} #{i}{z.get(f'{name}:{i}', '')}", f"{name}:{i}")
        for name, i in chosen.neurons
    ]


def _listed(subject: Subject, chosen: Chosen) -> tuple[str, str | None]:
    labels = "; ".join(label for label, _ in ticks(subject, chosen))
    return f"neurons ({len(chosen.neurons)})", labels or None


def neurons(
    subject: Subject, ticked: Sequence[str], whole_layers: Sequence[str], more: str
) -> NeuronSet:
    """The neurons of an edit: those ticked, those of whole layers, and those typed (see `typed`).

    Raises InputError.
    """
    widths = subject.model.widths("all")
    unknown = [name for name in whole_layers if name not in widths]
    if unknown:
        raise InputError(f"no layer {unknown[0]!r}: this model has {', '.join(widths)}")
    one_by_one = typed("; ".join(key.replace(":", ": ") for key in ticked), widths)
    of_layers = NeuronSet({name: range(widths[name]) for name in whole_layers})
    return one_by_one | of_layers | typed(more, widths)


def typed(text: str, widths: Mapping[str, int]) -> NeuronSet:
    """Neurons in writing, `LAYER:

    INDEX INDEX; LAYER: INDEX`; a layer by its number, from 1, or its name. Raises InputError.

    >>> typed("1: 3, 5; mid: 0", {"down": 8, "mid": 8})
    NeuronSet({'down': (3, 5), 'mid': (0,)})
    """
    found = EMPTY
    by_number = {str(k): name for k, name in enumerate(widths, 1)}
    for part in filter(None, (p.strip() for p in re.split(r"[;\n]", text[:LONGEST]))):
        layer, colon, indices = (piece.strip() for piece in part.partition(":"))
        layer = by_number.get(layer, layer)
        digits = re.split(r"[,\s#]+", indices.strip(" ,#"))
        if not colon or not all(n.isascii() and n.isdigit() and len(n) < 9 for n in digits):
            raise InputError(
                f"{short(part, 60)!r} names no neurons: write LAYER: INDEX INDEX, such as 1: 4 7;"
                " 3: 12"
            )
        if layer not in widths:
            raise InputError(
                f"no layer {short(layer, 60)!r}: give its number, 1 to {len(widths)}, or its whole"
                " name"
            )
        last = max(map(int, digits))
        if last >= widths[layer]:
            raise InputError(
                f"no neuron {last} in {layer}: it has {widths[layer]} (0 to {widths[layer] - 1})"
            )
        found |= NeuronSet({layer: map(int, digits)})
    return found


@dataclass(frozen=True)
class Compared:
    """One seed without and with an edit."""

    before: Image.Image
    after: Image.Image
    said: str


def compare(
    subject: Subject,
    who: Who,
    caption: str,
    edit: NeuronSet,
    factor: float,
    seed: float,
    tell: Tell,
) -> Compared:
    """The images of a caption and a seed without and with `edit` scaled by `factor`.

    The model is left as it was.

    Raises InputError for no caption, a factor outside -1 to 1 or a seed that is none;
    CancelledError.
    """
    caption = caption_given(caption)
    _check_factor(factor)
    if not (isinstance(seed, int | float) and 0 <= seed < SEEDS and seed == int(seed)):
        raise InputError(f"seed {seed} is not a whole number from 0 to {SEEDS - 1}")
    with subject.jobs.turn(who.session, who.epoch, subject.model, tell):
        before = subject.untouched(caption, int(seed))
        with deactivate(subject.model, edit, factor):
            after = generate(subject.model, caption, [int(seed)], subject.image_settings)[0]
    return Compared(before, after, f"seed {int(seed)}: {_count(edit)} {_scaled(factor)}")


def _check_factor(factor: float) -> None:
    if not (isinstance(factor, int | float) and FACTORS[0] <= factor <= FACTORS[1]):
        raise InputError(f"factor {factor} is outside {FACTORS[0]:g} to {FACTORS[1]:g}")


def _scaled(factor: float) -> str:
    return "off" if factor == 0 else f"times {factor:g}"


def _count(things: Sized, name: str = "neuron") -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


# any caption --------------------------------------------------------------------------------------


def caption_given(text: str | None) -> str:
    """A caption that was typed, as tables of captions are read.

    Raises InputError for none, and for one beyond LONGEST.
    """
    caption = (text or "").replace("\0", "").encode(errors="ignore").decode().strip()
    if not caption:
        raise InputError("no caption: type one, or choose one of the run")
    if len(caption) > LONGEST:
        raise InputError(f"the caption has {len(caption)} characters: give {LONGEST} at most")
    return caption


def examine(subject: Subject, who: Who, text: str, tell: Tell) -> Localization | float:
    """Score a caption and find its neurons; its score alone where there is no calibration.

    Raises InputError, CancelledError.
    """
    caption = caption_given(text)
    with subject.jobs.turn(who.session, who.epoch, subject.model, tell):
        if subject.calibration is None:
            return score(subject.model, caption)
        return localize(subject.model, caption, subject.calibration, images=subject.image_settings)


def unread(subject: Subject, text: str) -> str:
    """What is said of a caption that a text encoder does not read to its end; empty for others."""
    return cut(subject.model.readers, caption_given(text))


def judged(subject: Subject, found: Localization | float) -> str:
    """What was found, as HTML."""
    if not isinstance(found, Localization):
        return note(
            "Without a calibration this score cannot be judged: start the app with --calibration"
            " DIR."
        ) + numbers([("score", f"{found:.4f}")])
    rows = [*_measured(_unverified(found)), _listed(subject, chosen_of(found, found.prompt))]
    return whole(found.prompt) + numbers(rows)


def _unverified(found: Localization) -> Caption:
    """What was found, as a run would hold it: nothing was checked on fresh seeds."""
    said = found.to_json()
    detected = {
        "memorized": found.memorized,
        "score": found.score_before,
        "tau": found.tau,
        "p": found.p,
    }
    results = {"detect": detected} | ({"localize": said} if found.memorized else {})
    return Caption(0, found.prompt, 0, None, None, results, {}, 0.0)


def chosen_of(found: Localization | float, text: str) -> Chosen:
    """What a session works on once a caption has been examined."""
    if isinstance(found, Localization):
        return Chosen(found.prompt, found.neurons, found.z)
    return Chosen(caption_given(text))


# exports ------------------------------------------------------------------------------------------


def exportable(subject: Subject) -> list[Caption]:
    """The captions of the run with a memory that falls to tau."""
    return [c for c in captions(subject) if len(switched_off(c))]


def export(
    subject: Subject, who: Who, ids: Sequence[int], form: str, factor: float
) -> tuple[Path, str]:
    """Write a form of `findnemo.export.FORMS` for some captions of the run, all if none is named:
    the file, and what it holds.

    A form that is a directory becomes a zip. An earlier export of the session is removed. Raises
    what `findnemo.export` raises.
    """
    if subject.run is None:
        raise InputError(
            "exports are made from a run: make one with `findnemo audit`, and open the app on it"
        )
    exports.check_form(form)
    with Run.open(subject.run) as run:
        chosen = exports.select(run, _named(list(run.captions()), ids), factor=factor)
    forget(subject, who.session, "export")
    name = exports.FORMS[form].name
    place = _place(subject, who.session, "export")
    try:
        with subject.jobs.turn(who.session, who.epoch, subject.model, lambda done: None):
            path = exports.write(form, chosen, place / name, subject.model)
            file = path if path.is_file() else _zipped(path)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    of = f"{_count(chosen.neurons)} {_scaled(factor)}, for {_count(chosen.captions, 'caption')}"
    return file, f"{form}: {of}"


def save(subject: Subject, who: Who, edit: NeuronSet, factor: float) -> tuple[Path, str]:
    """An edit as a neuron file, and the command that makes a model of it, as HTML.

    An earlier file of the session is removed. Raises InputError for no neurons, or a factor outside
    -1 to 1.
    """
    _check_factor(factor)
    with ExitStack() as stack:
        of = subject.model if subject.run is None else stack.enter_context(Run.open(subject.run))
        chosen = exports.by_hand(edit, of, factor)
    forget(subject, who.session, "edit")
    place = _place(subject, who.session, "edit") / exports.FORMS["neurons"].name
    file = exports.write("neurons", chosen, place)
    said = note(
        f"{_count(edit)} {_scaled(factor)}, chosen by hand, not verified. Download the file; where"
        " it lies then, this writes the model with that in its weights (--to takes the other forms):"
    )
    return file, said + command(_exporting(subject, file.name))


def _exporting(subject: Subject, file: str) -> str:
    """The command that exports a neuron file, as a shell reads it."""
    if subject.run is not None:
        opened = [str(subject.run)]
    elif subject.model.source.startswith("live"):  # given as a pipeline, it lies nowhere
        opened = ["MODEL"]
    else:
        flags = {"variant": "--weights-variant"}
        named = subject.model.options.items()
        beside = [part for k, v in named for part in (flags.get(k, f"--{k}"), str(v))]
        opened = [str(subject.model.source), *beside]
    return shlex.join(
        [
            "findnemo",
            "export",
            *opened,
            "--neurons-file",
            file,
            "--to",
            "checkpoint",
            "--out",
            "clean",
        ]
    )


def forget(subject: Subject, session: str, what: str = "") -> None:
    """Remove what was written for a session: all of it, or an "export" or "edit"."""
    for old in subject.folder.glob(f"{_mark(session)}-{what}*"):
        shutil.rmtree(old, ignore_errors=True)


def _place(subject: Subject, session: str, what: str) -> Path:
    """A new folder, whose name nobody else can guess."""
    return subject.folder / f"{_mark(session)}-{what}-{secrets.token_hex(16)}"


def leave(subject: Subject, session: str) -> None:
    """A session has ended: its work stops, and its exports are removed."""
    subject.jobs.cancel(session)
    forget(subject, session)


def _mark(session: str) -> str:
    return hashlib.sha256(session.encode(errors="ignore")).hexdigest()[:16]


def _named(known: Sequence[Caption], ids: Sequence[int]) -> list[str]:
    """What tells the captions of some ids from all others: their row numbers, or their texts if
    a row number is there twice.
    """
    rows = [c.row for c in known]
    if set(ids) - {c.id for c in known}:
        raise InputError("no such caption in this run: choose from the list")
    return [str(c.row) if rows.count(c.row) == 1 else c.text for c in known if c.id in ids]


def _zipped(folder: Path) -> Path:
    """A directory as a zip beside it, in its place. Weights do not compress: they are stored."""
    target = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(folder.name) / file.relative_to(folder))
    shutil.rmtree(folder)
    return target


def welcome(subject: Subject) -> str:
    """What the app shows, in one line of HTML."""
    where = f"Run {escaped(short(subject.run.name))} of " if subject.run is not None else ""
    return (
        f'<p class="subject">{where}model'
        f" <bdi>{escaped(short(str(subject.model.source)))}</bdi></p>"
    )
