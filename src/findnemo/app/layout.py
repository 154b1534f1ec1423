"""The page: which component asks which event. Everything that it shows comes from `events`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr

from findnemo.app import events
from findnemo.app.events import COLUMNS, FILTERS, LONGEST, SORTS, Chosen, Who
from findnemo.app.jobs import CancelledError, Tell
from findnemo.app.subject import Subject
from findnemo.app.text import alarm, note, whole
from findnemo.errors import FindnemoError
from findnemo.export import FORMS
from findnemo.seeds import FRESH

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
MODEL: dict[str, Any] = {**PRIVATE, "concurrency_limit": 1, "concurrency_id": "model"}  # in turns
PAGE: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
NOW: dict[str, Any] = {**PAGE, "queue": False}
SYSTEM = ("system-ui", "sans-serif")  # fonts that nothing has to be fetched for
MONO = ("ui-monospace", "monospace")
THEME = gr.themes.Default(primary_hue="blue", font=SYSTEM, font_mono=MONO).set(
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
)
CSS = """
.caption { font-size: 1.15rem; overflow-wrap: anywhere; white-space: pre-wrap; max-height: 12rem; overflow-y: auto; margin: 0 0 .5rem }
.numbers { border: 0 !important; border-collapse: collapse; overflow-wrap: anywhere }
.numbers :is(tr, th, td) { border: 0 !important; padding: .1rem 0 !important; vertical-align: top }
.numbers th { text-align: left; font-weight: 400; width: min(18rem, 55%); color: var(--body-text-color-subdued) }
.numbers td { font-variant-numeric: tabular-nums }
.note, .alarm { margin: .25rem 0; overflow-wrap: anywhere }
.command { white-space: pre-wrap; overflow-wrap: anywhere; margin: .25rem 0; user-select: all }
.alarm { border-left: 4px solid #b91c1c; padding-left: .75rem }
.pictures .grid-wrap { max-height: none }
@media (max-width: 640px) { .pictures .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important } }
.picture img { width: 100%; height: 100%; object-fit: contain }
"""
HOW = """This app was opened on a model, without a run. A run holds the captions of an audit, with their neurons and images. Make one, and open
the app on it:

    findnemo audit MODEL --prompts captions.csv --holdout holdout.csv --out run
    findnemo app run

Meanwhile any caption can be typed and examined under *Any caption*.
"""
WIDTHS: list[str | int] = ["60px", "400px", "80px", "150px", "80px", "90px", "80px"]
KINDS: Any = ["number", "str", "str", "str", "number", "number", "number"]
SHOWN: dict[str, Any] = {"interactive": False, "buttons": [], "format": "png"}
PICTURES: dict[str, Any] = {
    **SHOWN,
    "elem_classes": "pictures",
    "columns": 4,
    "height": 220,
    "object_fit": "contain",
}
PICTURE: dict[str, Any] = {**SHOWN, "elem_classes": "picture", "height": 280}
NOTHING = note("No caption is chosen: choose one of the run, or examine one.")
SAYS = {
    "checkpoint": "a diffusers directory, as a zip",
    "file": "one .safetensors file for user interfaces",
    "lora": "a LoRA for diffusers, as a zip",
    "kohya": "a LoRA for user interfaces",
    "adapter": "the audited LoRA without these neurons, for diffusers",
    "adapter-kohya": "the audited LoRA without these neurons, for user interfaces",
    "neurons": "the neurons as JSON",
    "card": "a section for the model card",
}


@dataclass(frozen=True)
class Shared:
    """What all tabs use: what a session works on, its epoch (see `Jobs`),
    and the tabs themselves.
    """

    chosen: gr.State
    epoch: gr.Number
    tabs: gr.Tabs


@dataclass(frozen=True)
class Fill:
    """How a tab takes over what was chosen in another:

    `values(chosen)` gives new values of the components `shown`.
    """

    values: Callable[[Chosen], dict[Any, Any]]
    shown: list[Any]


def build(subject: Subject) -> gr.Blocks:
    """The page for a subject; `findnemo.app.launch` serves it."""
    with gr.Blocks(
        title="findnemo", analytics_enabled=False, delete_cache=(3600, 24 * 3600)
    ) as page:
        gr.Markdown("# findnemo")
        gr.HTML(events.welcome(subject))
        chosen = gr.State(Chosen())
        epoch = gr.Number(0, visible=False, precision=0)
        with gr.Tabs() as tabs:
            shared = Shared(chosen, epoch, tabs)
            with gr.Tab("Neurons", id="neurons", render=False) as switching:
                fill = _neurons(subject, shared)
            with gr.Tab("Captions", id="captions"):
                gr.Markdown(HOW) if subject.run is None else _captions(subject, shared, fill)
            with gr.Tab("Any caption", id="any"):
                _any_caption(subject, shared, fill)
            switching.render()
            with gr.Tab("Export", id="export"):
                gr.Markdown(HOW) if subject.run is None else _export(subject, shared)

        def leave(request: gr.Request) -> None:
            events.leave(subject, _session(request))

        page.unload(leave)
    return page


def _session(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _who(request: gr.Request, epoch: float) -> Who:
    return Who(_session(request), int(epoch))


def _tell(progress: gr.Progress) -> Tell:
    return lambda done: progress((done, None), desc="", unit="U-Net evaluations")


def _told(status: gr.HTML) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An event of which `status` tells why it could not be done; all else then stays as it is."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any) -> Any:
            try:
                return function(*args)
            except CancelledError:
                return {status: note("Cancelled.")}
            except FindnemoError as error:
                return {status: alarm(error)}

        return run

    return wrapped


def _cancel_button(subject: Subject, shared: Shared) -> None:
    def cancel(request: gr.Request) -> int:
        return subject.jobs.cancel(_session(request))

    gr.Button("Cancel").click(cancel, None, shared.epoch, **NOW)


def _to_neurons(shared: Shared) -> None:
    gr.Button("Switch its neurons").click(
        lambda: gr.Tabs(selected="neurons"), None, shared.tabs, **NOW
    )


def _captions(subject: Subject, shared: Shared, fill: Fill) -> None:
    """The captions of the run, and one of them."""
    found = events.matching(subject, "", "all", "row")
    with gr.Row():
        search = gr.Textbox(label="Search captions", max_length=LONGEST)
        kept = gr.Dropdown(list(FILTERS), value="all", label="Show", filterable=False)
        sort = gr.Dropdown(list(SORTS), value="row", label="Order", filterable=False)
    count = gr.HTML(note(events.counted(found)))
    table = gr.Dataframe(
        events.table(found),
        headers=list(COLUMNS),
        datatype=KINDS,
        type="array",
        interactive=False,
        max_height=320,
        column_widths=WIDTHS,
        label="Captions of the run",
        buttons=[],
    )
    pick = gr.Dropdown(
        events.names(found),
        value=None,
        label="Caption",
        info="Choose one here, or click on a row above.",
    )
    status = gr.HTML()
    with gr.Column(visible=False) as one_caption:
        title = gr.HTML()
        with gr.Row():
            of_training = "The training image"
            training = gr.Image(
                label="Training image", alt_text=of_training, scale=1, visible=False, **PICTURE
            )
            with gr.Column(scale=3):
                before = gr.Gallery(label="Before", **PICTURES)
                after = gr.Gallery(label="With its neurons off, the same seeds", **PICTURES)
        _to_neurons(shared)
        about = gr.HTML()
        with gr.Accordion("Sheet of the audit", open=False, visible=False) as folded:
            whole_height = {**PICTURE, "height": None}
            of_sheet = "Images before and after, of the audit"
            sheet = gr.Image(show_label=False, alt_text=of_sheet, **whole_height)

    def refilter(search: str, kept: str, sort: str) -> Any:
        found = events.matching(subject, search, kept, sort)
        return (
            note(events.counted(found)),
            events.table(found),
            gr.Dropdown(choices=events.names(found), value=None),
        )

    def show(id_: int | None) -> Any:
        if id_ is None:
            return {status: ""}
        one = events.detail(subject, id_)
        return {
            status: "",
            one_caption: gr.Column(visible=True),
            title: one.title,
            about: one.about,
            before: one.before,
            after: one.after,
            training: gr.Image(one.training, visible=one.training is not None),
            sheet: one.sheet,
            folded: gr.Accordion(visible=one.sheet is not None),
            shared.chosen: one.chosen,
            **fill.values(one.chosen),
        }

    def clicked(event: gr.SelectData) -> Any:
        id_ = events.clicked(subject, event.row_value)
        return {pick: id_, **show(id_)}

    asked = [search, kept, sort]
    for changed in (search.change, kept.change, sort.change):
        narrowed = [count, table, pick]
        changed(_told(count)(refilter), asked, narrowed, trigger_mode="always_last", **PAGE)
    pictures = [before, after, training, sheet, folded]
    shown = [status, one_caption, title, about, *pictures, shared.chosen, *fill.shown]
    pick.input(_told(status)(show), pick, shown, **PAGE)
    table.select(_told(status)(clicked), None, [pick, *shown], **PAGE)


def _any_caption(subject: Subject, shared: Shared, fill: Fill) -> None:
    """Any caption, scored and localized."""
    text = gr.Textbox(label="Caption", lines=2, max_lines=6, max_length=LONGEST)
    does = "Score" if subject.calibration is None else "Score and find its neurons"
    with gr.Row():
        start = gr.Button(does, variant="primary")
        _cancel_button(subject, shared)
    status = gr.HTML(elem_classes="status")
    with gr.Column(visible=False) as found_here:
        result = gr.HTML()
        _to_neurons(shared)

    def examine(
        caption: str,
        epoch: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        found = events.examine(subject, _who(request, epoch), caption, _tell(progress))
        if what := events.unread(subject, caption):
            gr.Warning(what)
        chosen = events.chosen_of(found, caption)
        return {
            status: note("Done."),
            found_here: gr.Column(visible=True),
            result: events.judged(subject, found),
            shared.chosen: chosen,
            **fill.values(chosen),
        }

    outputs = [status, found_here, result, shared.chosen, *fill.shown]
    gr.on(
        [start.click, text.submit],
        _told(status)(examine),
        [text, shared.epoch],
        outputs,
        show_progress_on=status,
        **MODEL,
    )


def _neurons(subject: Subject, shared: Shared) -> Fill:
    """Single neurons and whole layers of the chosen caption, switched off or
    scaled, and what that changes.
    """
    caption = gr.HTML(NOTHING)
    ticked = gr.CheckboxGroup(
        [], label="Its neurons", info="Those with a tick are scaled by the factor.", visible=False
    )
    with gr.Row():
        whole_layers = gr.Dropdown(
            events.layers(subject), multiselect=True, label="Whole layers", value=[]
        )
        more = gr.Textbox(
            label="Further neurons",
            info="LAYER: INDEX INDEX; for example 1: 4 7; 3: 12",
            max_length=LONGEST,
        )
    with gr.Row():
        factor = gr.Slider(
            *events.FACTORS,
            value=0,
            step=0.05,
            label="Factor",
            info="0 switches off, 1 changes nothing.",
            buttons=[],
        )
        seed = gr.Number(
            FRESH,
            precision=0,
            minimum=0,
            label="Seed",
            info=f"The audit's images begin with {FRESH}.",
        )
    with gr.Row():
        start = gr.Button("Generate", variant="primary")
        _cancel_button(subject, shared)
        keep = gr.Button("Save these neurons")
    status = gr.HTML(elem_classes="status")
    file = gr.DownloadButton("Download", visible=False, variant="primary")
    with gr.Row(visible=False) as images:
        before = gr.Image(
            label="Before", alt_text="The image without an edit", elem_id="before", **PICTURE
        )
        after = gr.Image(
            label="After", alt_text="The image with the edit", elem_id="after", **PICTURE
        )

    def generate(
        chosen: Chosen,
        keys: list[str],
        layers: list[str],
        typed: str,
        factor: float,
        seed: float,
        epoch: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        edit = events.neurons(subject, keys, layers, typed)
        who = _who(request, epoch)
        one = events.compare(subject, who, chosen.caption, edit, factor, seed, _tell(progress))
        shown = {before: one.before, after: one.after, images: gr.Row(visible=True)}
        return {status: note(one.said), **shown}

    def save(
        keys: list[str],
        layers: list[str],
        typed: str,
        factor: float,
        epoch: float,
        request: gr.Request,
    ) -> Any:
        edit = events.neurons(subject, keys, layers, typed)
        path, said = events.save(subject, _who(request, epoch), edit, factor)
        return {
            status: said,
            file: gr.DownloadButton(f"Download {path.name}", value=str(path), visible=True),
        }

    keep.click(
        _told(status)(save),
        [ticked, whole_layers, more, factor, shared.epoch],
        [status, file],
        show_progress_on=status,
        **PRIVATE,
    )
    inputs = [shared.chosen, ticked, whole_layers, more, factor, seed, shared.epoch]
    start.click(
        _told(status)(generate),
        inputs,
        [status, images, before, after],
        show_progress_on=status,
        **MODEL,
    )

    def values(chosen: Chosen) -> dict[Any, Any]:
        choices = events.ticks(subject, chosen)
        keys = [key for _, key in choices]
        return {
            caption: whole(chosen.caption) if chosen.caption else NOTHING,
            ticked: gr.CheckboxGroup(choices=choices, value=keys, visible=bool(choices)),
            images: gr.Row(visible=False),
            file: gr.DownloadButton(visible=False),
            status: "",
        }

    return Fill(values, [caption, ticked, images, file, status])


def _export(subject: Subject, shared: Shared) -> None:
    """The cleaned model of some captions."""
    ids = gr.Dropdown(
        events.names(events.exportable(subject)),
        multiselect=True,
        value=[],
        label="Captions",
        info="None: all whose memory falls to the threshold.",
    )
    forms = [(f"{form}: {SAYS[form]}", form) for form in FORMS]
    form = gr.Radio(forms, value="checkpoint", label="Form")
    factor = gr.Number(0, label="Factor", info="0 switches the neurons off.")
    start = gr.Button("Export", variant="primary")
    status = gr.HTML(elem_classes="status")
    file = gr.DownloadButton("Download", visible=False, variant="primary")

    def export(ids: list[int], form: str, factor: float, epoch: float, request: gr.Request) -> Any:
        path, said = events.export(subject, _who(request, epoch), ids, form, factor)
        return {
            status: note(said),
            file: gr.DownloadButton(f"Download {path.name}", value=str(path), visible=True),
        }

    start.click(
        _told(status)(export),
        [ids, form, factor, shared.epoch],
        [status, file],
        show_progress_on=status,
        **MODEL,
    )
