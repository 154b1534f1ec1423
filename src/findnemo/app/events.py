"""The answers of the app: plain functions of what is shown and what is chosen.

They call runs and the API, and compute nothing.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo import export as exports
from findnemo.app import drawing
from findnemo.app.drawing import Card, Line
from findnemo.app.edit import (
    LONGEST,
    NONE,
    Edit,
    View,
    check_factor,
    check_seed,
    link,
    view_from_query,
)
from findnemo.app.jobs import Tell
from findnemo.app.subject import Subject, caption_of, captions, run_images, sheet, training_image
from findnemo.app.text import command, escaped, note, numbers, short, whole
from findnemo.errors import InputError
from findnemo.localization import Localization, TrajectorySearch, localize
from findnemo.metrics import Judges
from findnemo.metrics.copies import COPY, TRAINED, similarities
from findnemo.models import truncation_note
from findnemo.neurons import Neuron, NeuronSet
from findnemo.passes.deltas import score
from findnemo.runs import BAD, STANDINGS, Caption, Run, row, standing, state, switched_off
from findnemo.runs.overview import BEFORE_AFTER
from findnemo.runs.standing import (
    WORDS,
    meaning,
    standing_text,
    whose_neurons,
    with_joined,
    worst_first,
    z_scores,
)
from findnemo.runs.why import why
from findnemo.runs.wording import count
from findnemo.seeds import FRESH

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 120  # captions in the grid
PICKED = 500  # captions in a drop-down list
SAMPLES = 4  # images made at once, one for each seed
HISTORY = 50  # edits that can be undone


@dataclass(frozen=True)
class Who:
    """The session that asks, and its epoch (see `Jobs`)."""

    session: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class SessionState:
    """The state of a session: a caption, its neurons in the order in which they go off, their
    z-scores, and the edits so far.

    The last edit is in force. Nothing else is kept for a session. `id`: of a caption of the run.
    """

    caption: str = ""
    order: tuple[Neuron, ...] = ()
    z: Mapping[str, float] = field(default_factory=dict)
    id: int | None = None
    history: tuple[Edit, ...] = (NONE,)

    @property
    def edit(self) -> Edit:
        return self.history[-1]

    @property
    def neurons(self) -> NeuronSet:
        return NeuronSet.of(self.order)


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


def _by(key: Callable[[Caption], Any]) -> Callable[[Sequence[Caption]], list[Caption]]:
    return partial(sorted, key=key)


SORTS: dict[str, Callable[[Sequence[Caption]], list[Caption]]] = {
    "worst first": worst_first,
    "row": _by(lambda c: c.row),
    "highest score": _by(lambda c: math.inf if c.score is None else -c.score),
    "most neurons": _by(lambda c: -len(with_joined(c))),
    "text": _by(lambda c: c.text.casefold()),
}


def matching(subject: Subject, search: str, kept: str, sort: str) -> list[Caption]:
    """The captions that contain `search` and pass one of FILTERS, in the order of one of SORTS."""
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
    return SORTS[sort](found)


def cards(subject: Subject, found: Sequence[Caption]) -> list[Card]:
    """The first captions as thumbnails: the first seed before and after, and the standing."""
    return [_card(subject, caption) for caption in found[:SHOWN]]


def _card(subject: Subject, caption: Caption) -> Card:
    images = run_images(subject, caption, most=1)
    before, after = (next(iter(images[when]), None) for when in ("before", "after"))
    score = None if caption.score is None else f"score {caption.score:.2f}"
    off = count(len(switched_off(caption)), "neuron") if switched_off(caption) else None
    beside = ", ".join(filter(None, (score, off)))
    tone = WORDS[standing(caption)].tone
    return Card(
        caption.id, caption.row, caption.text, standing_text(caption), tone, beside, before, after
    )


def counted_captions(found: Sequence[Caption]) -> str:
    more = f"; the first {SHOWN} are shown: search for others" if len(found) > SHOWN else ""
    return count(len(found), "caption") + more


def names(found: Iterable[Caption]) -> list[tuple[str, int]]:
    """(label, id) of captions, for a list."""
    return [(f"{c.row}: {short(c.text)}", c.id) for c in list(found)[:PICKED]]


def state_of_caption(caption: Caption) -> SessionState:
    """The state of a session after it chose a caption of the run."""
    found = with_joined(caption)
    listed = () if caption.localized is None else caption.localized.order
    return SessionState(
        caption.text, _order(found, listed, z_scores(caption)), z_scores(caption), caption.id
    )


def _order(
    found: NeuronSet, listed: Sequence[Neuron], z: Mapping[str, float]
) -> tuple[Neuron, ...]:
    """Neurons in the order of the search; those not in it follow, the highest z-score first."""
    first = [(layer, index) for layer, index in listed if (layer, index) in found]
    rest = (neuron for neuron in found if neuron not in first)
    return (*first, *sorted(rest, key=lambda n: -z.get(f"{n[0]}:{n[1]}", 0.0)))


@dataclass(frozen=True)
class Detail:
    """One caption of a run, in HTML. `title`: the caption with its standing. `about`: its
    measurements.
    """

    chosen: SessionState
    title: str
    about: str
    sheet: Image.Image | None


def detail(subject: Subject, id_: object) -> Detail:
    """Everything that the run says about one caption. Raises InputError if it has no such
    caption.
    """
    caption = caption_of(subject, id_)
    values = row(caption)
    chosen = state_of_caption(caption)
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
        title=whole(caption.text) + note(f"{standing_text(caption)}: {meaning(caption)}"),
        about=numbers(about),
        sheet=sheet(subject, caption),
    )


def _measured(caption: Caption) -> Iterator[tuple[str, Any]]:
    """The standing of a caption and its measurements, under the names of terminal and report."""
    values = row(caption)
    yield "verdict", f"{standing_text(caption)}: {meaning(caption)}"
    yield "why", why(caption)
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


def ticks(subject: Subject, chosen: SessionState) -> list[tuple[str, Neuron]]:
    """(label, neuron) of the neurons of a caption, with known z-scores."""
    number = {name: k for k, name in enumerate(subject.model.widths("all"), 1)}
    z = {key: f", z = {value:.1f}" for key, value in chosen.z.items()}
    return [
        (f"layer {number.get(name, name)} #{i}{z.get(f'{name}:{i}', '')}", (name, i))
        for name, i in chosen.order
    ]


def _listed(subject: Subject, chosen: SessionState) -> tuple[str, str | None]:
    labels = "; ".join(label for label, _ in ticks(subject, chosen))
    return f"neurons ({len(chosen.order)})", labels or None


def under_edit(chosen: SessionState, edit: Edit) -> SessionState:
    """The state with another edit in force; the last HISTORY edits can be undone."""
    if edit == chosen.edit:
        return chosen
    return replace(chosen, history=(*chosen.history, edit)[-HISTORY - 1 :])


def undone(chosen: SessionState) -> SessionState:
    """The state with the edit before the last one, if there was one."""
    return replace(chosen, history=chosen.history[:-1] or chosen.history)


def neuron_at(subject: Subject, layer: object, index: object) -> Neuron:
    """The neuron of a click on the map: layer and index as numbers from 0.

    Raises InputError for one that the model does not have.
    """
    widths = list(subject.model.widths("all").items())
    if not (isinstance(layer, int) and 0 <= layer < len(widths)):
        raise InputError("no such layer in this model")
    name, width = widths[layer]
    if not (isinstance(index, int) and 0 <= index < width):
        raise InputError(f"no such neuron in {name}")
    return name, index


def neuron_map(subject: Subject, chosen: SessionState) -> str:
    """The neurons of a caption and of the whole model, with the effect of the edit on each, as
    HTML.
    """
    widths = subject.model.widths("all")
    its_own = drawing.chips(ticks(subject, chosen), chosen.edit, list(widths))
    return its_own + drawing.neuron_map(widths, chosen.edit, chosen.order)


@dataclass(frozen=True)
class EditComparison:
    """Images of some seeds without and with an edit, and the similarity of each to the copy.

    `measure`: the kind of similarity. `copy`: the value from which an image is a copy.
    """

    before: list[Image.Image]
    after: list[Image.Image]
    alike_before: list[float]
    alike_after: list[float]
    measure: str
    copy: float


def compare(
    subject: Subject, who: Who, chosen: SessionState, seed: float, tell: Tell
) -> EditComparison:
    """The images of the caption on SAMPLES seeds from `seed` on, without and with its edit.

    The model is left unchanged. Images are compared with the training image, or if that is missing
    with untouched images of the other seeds, as in verification (`metrics.similarities`).

    Raises InputError for no caption, a factor outside -1 to 1 or an invalid seed; CancelledError.
    """
    caption = caption_given(chosen.caption)
    check_factor(chosen.edit.factor)
    first = check_seed(seed)
    seeds = range(first, first + SAMPLES)
    of_run = None if chosen.id is None else caption_of(subject, chosen.id)
    judges = Judges(subject.descriptor, original=training_image(subject, caption, of_run))
    with subject.jobs.turn(who.session, who.epoch, subject.model, tell):
        before = subject.made(caption, seeds, NONE)
        after = subject.made(caption, seeds, chosen.edit)
        alike = similarities(before, after, judges)
    trained = "sscd_orig_after" in alike
    name = "sscd_orig" if trained else "copies"
    was, now = (alike[f"{name}_{when}"].tolist() for when in ("before", "after"))
    measure = "training image" if trained else "untouched images of other seeds"
    return EditComparison(before, after, was, now, measure, TRAINED if trained else COPY)


def comparison_note(chosen: SessionState, compared: EditComparison | None) -> str:
    """The edit in words, and the similarity of the images to the copy, as HTML."""
    switched = note(f"{chosen.edit}.") if chosen.caption else ""
    if compared is None:
        return switched
    was, now = (
        sorted(values)[(len(values) - 1) // 2]
        for values in (compared.alike_before, compared.alike_after)
    )
    name = f"Median similarity to the {compared.measure}"
    return switched + drawing.meter(name, was, now, compared.copy)


def pictures(
    subject: Subject, chosen: SessionState, compared: EditComparison | None, seed: float = FRESH
) -> str:
    """The training image, the audit's images before and after, and those with the edit, side by
    side, as HTML.

    Images of the audit have the seeds from FRESH on.
    """
    caption = None if chosen.id is None else caption_of(subject, chosen.id)
    audited: dict[str, list[Image.Image]] = {"before": [], "after": []}
    if caption is not None and seed == FRESH:
        audited = run_images(subject, caption, most=SAMPLES)
    off = None if caption is None else whose_neurons(caption)
    lines = [
        Line("Before", audited["before"]),
        Line(f"Audit: {off or 'its own neurons'} off", audited["after"]),
    ]
    if compared is not None:
        lines[0] = Line("Before", compared.before, compared.alike_before)
        lines.append(Line(f"Now, {chosen.edit}", compared.after, compared.alike_after))
    training = training_image(subject, chosen.caption, caption)
    return drawing.side_by_side(training, lines, check_seed(seed))


def needs_images(subject: Subject, chosen: SessionState, seed: float) -> bool:
    """Whether images must be made, because those of the audit do not show the edit."""
    if not chosen.caption:
        return False
    if chosen.edit or seed != FRESH or chosen.id is None:
        return True
    return not run_images(subject, caption_of(subject, chosen.id), most=1)["before"]


# links --------------------------------------------------------------------------------------------


def link_to(subject: Subject, chosen: SessionState, seed: float) -> str:
    """The query of an address that opens the page in this state; empty if there is none."""
    view = View(chosen.id, chosen.caption, chosen.edit, check_seed(seed))
    return link(view, subject.model.widths("all"), FRESH)


def state_from_query(subject: Subject, query: str) -> tuple[SessionState, int] | None:
    """The state and the first seed that the query of an address requests; None without a request.

    Raises InputError for an invalid query.
    """
    view = view_from_query(query, subject.model.widths("all"), FRESH)
    if view is None:
        return None
    if view.id is None:
        chosen = SessionState(caption_given(view.text))
    else:
        chosen = state_of_caption(caption_of(subject, view.id))
    return under_edit(chosen, view.edit), view.seed


# any caption --------------------------------------------------------------------------------------


def caption_given(text: str | None) -> str:
    """A typed caption, read as in tables of captions.

    Raises InputError for an empty one, and for one longer than LONGEST.
    """
    caption = (text or "").replace("\0", "").encode(errors="ignore").decode().strip()
    if not caption:
        raise InputError("no caption: type one, or choose one of the run")
    if len(caption) > LONGEST:
        raise InputError(f"the caption has {len(caption)} characters: give {LONGEST} at most")
    return caption


def examine(subject: Subject, who: Who, text: str, tell: Tell) -> Localization | float:
    """Score a caption and find its neurons; only its score if there is no calibration.

    Raises InputError, CancelledError.
    """
    caption = caption_given(text)
    with subject.jobs.turn(who.session, who.epoch, subject.model, tell):
        if subject.calibration is None:
            return score(subject.model, caption)
        search = TrajectorySearch(subject.image_settings)
        return localize(subject.model, caption, subject.calibration, search)


def unread(subject: Subject, text: str) -> str:
    """A note on a caption that a text encoder truncates; empty for others."""
    return truncation_note(subject.model.readers, caption_given(text))


def examination_html(subject: Subject, found: Localization | float) -> str:
    """The result of an examination, as HTML."""
    if not isinstance(found, Localization):
        return note(
            "Without a calibration this score cannot be judged: start the app with --calibration"
            " DIR."
        ) + numbers([("score", f"{found:.4f}")])
    rows = [
        *_measured(_unverified(found)),
        _listed(subject, state_of_examination(found, found.prompt)),
    ]
    return whole(found.prompt) + numbers(rows)


def _unverified(found: Localization) -> Caption:
    """The result of an examination as a caption of a run, without verification."""
    said = found.to_json()
    detected = {
        "memorized": found.memorized,
        "score": found.score_before,
        "tau": found.tau,
        "p": found.p,
    }
    results = {"detect": detected} | ({"localize": said} if found.memorized else {})
    return Caption(0, found.prompt, 0, None, None, results, {}, 0.0)


def state_of_examination(found: Localization | float, text: str) -> SessionState:
    """The state of a session after the examination of a caption."""
    if isinstance(found, Localization):
        return SessionState(found.prompt, _order(found.neurons, found.order, found.z), found.z)
    return SessionState(caption_given(text))


# exports ------------------------------------------------------------------------------------------


def exportable(subject: Subject) -> list[Caption]:
    """The captions of the run whose memory falls to tau."""
    return [c for c in captions(subject) if len(switched_off(c))]


def export(
    subject: Subject, who: Who, ids: Sequence[int], form: str, factor: float
) -> tuple[Path, str]:
    """Write a form of `findnemo.export.FORMS` for some captions of the run, all by default; return
    the file and its contents in words.

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
    name = exports.FORMS[form].name
    place = _place(subject, who.session, "export")
    try:
        with subject.jobs.turn(who.session, who.epoch, subject.model, lambda done: None):
            path = exports.write(form, chosen, place / name, subject.model)
            file = path if path.is_file() else _zipped(path)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    neurons = count(len(chosen.neurons), "neuron")
    scaled = "off" if factor == 0 else f"times {factor:g}"
    return file, f"{form}: {neurons} {scaled}, for {count(len(chosen.captions), 'caption')}"


def save(subject: Subject, who: Who, edit: Edit) -> tuple[Path, str]:
    """Write an edit as a neuron file; return it with the command that makes a model from it, as
    HTML.

    An earlier file of the session is removed. Raises InputError for no neurons, and for neurons off
    together with scaled ones: a neuron file has one factor.
    """
    if edit.off and edit.scaled:
        raise InputError(
            "a neuron file has one factor: switch off or scale all of the neurons, not some each"
        )
    neurons, factor = (edit.scaled, edit.factor) if edit.scaled else (edit.off, 0.0)
    check_factor(factor)
    with nullcontext(subject.model) if subject.run is None else Run.open(subject.run) as of:
        chosen = exports.by_hand(neurons, of, factor)
    place = _place(subject, who.session, "edit") / exports.FORMS["neurons"].name
    file = exports.write("neurons", chosen, place)
    said = note(
        f"{edit}, chosen by hand, not verified. Download the file; where it lies then, this writes"
        " the model with that in its weights (--to takes the other forms):"
    )
    return file, said + command(_exporting(subject, file.name))


def _exporting(subject: Subject, file: str) -> str:
    """The command that exports a neuron file, quoted for a shell."""
    if subject.run is not None and not subject.shipped:
        opened = [str(subject.run)]
    elif subject.model.source.startswith("live"):  # a live pipeline has no place
        opened = ["MODEL"]
    else:
        flags = {"variant": "--weights-variant"}
        named = subject.model.options.items()
        beside = [part for k, v in named for part in (flags.get(k, f"--{k}"), str(v))]
        opened = [str(subject.model.source), *beside]
    what = f"{shlex.join(opened)} --neurons-file {shlex.quote(file)}"
    return f"findnemo export {what} --to checkpoint --out clean"


def forget(subject: Subject, session: str, what: str = "") -> None:
    """Remove the files of a session: all, or its "export" or "edit"."""
    for old in subject.folder.glob(f"{_mark(session)}-{what}*"):
        shutil.rmtree(old, ignore_errors=True)


def _place(subject: Subject, session: str, what: str) -> Path:
    """A new folder with a name that nobody can guess, in the place of an earlier one."""
    forget(subject, session, what)
    return subject.folder / f"{_mark(session)}-{what}-{secrets.token_hex(16)}"


def leave(subject: Subject, session: str) -> None:
    """End a session: stop its work, and remove its files."""
    subject.jobs.cancel(session)
    forget(subject, session)


def _mark(session: str) -> str:
    return hashlib.sha256(session.encode(errors="ignore")).hexdigest()[:16]


def _named(known: Sequence[Caption], ids: Sequence[int]) -> list[str]:
    """Unique names of captions by their ids: row numbers, or texts if a row number is repeated."""
    rows = [c.row for c in known]
    if set(ids) - {c.id for c in known}:
        raise InputError("no such caption in this run: choose from the list")
    return [str(c.row) if rows.count(c.row) == 1 else c.text for c in known if c.id in ids]


def _zipped(folder: Path) -> Path:
    """Replace a directory by a zip. Weights do not compress, so they are stored."""
    target = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(folder.name) / file.relative_to(folder))
    shutil.rmtree(folder)
    return target


def welcome(subject: Subject) -> str:
    """One line of HTML on what the app shows."""
    model = f"model <bdi>{escaped(short(str(subject.model.source)))}</bdi>"
    if subject.run is None:
        shown = f"{model}, without a run"
    elif subject.shipped:
        shown = f"A finished audit of the {model}"
    else:
        shown = f"Run {escaped(short(subject.run.name))} of {model}"
    return f'<p class="subject">{shown}</p>'
