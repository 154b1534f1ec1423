"""The page: which component triggers which event. All of its contents come from `events`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr

from findnemo.app import drawing, edit, events
from findnemo.app.edit import LONGEST, NONE, Edit, edit_at
from findnemo.app.events import FILTERS, SORTS, SessionState, Who
from findnemo.app.jobs import CancelledError, Tell
from findnemo.app.subject import Subject
from findnemo.app.text import alarm, note, whole
from findnemo.errors import FindnemoError
from findnemo.export import FORMS
from findnemo.seeds import FRESH

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
MODEL: dict[str, Any] = {**PRIVATE, "concurrency_limit": 1, "concurrency_id": "model"}  # in turns
PAGE: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
EDITS: dict[str, Any] = {**PAGE, "concurrency_limit": 1, "concurrency_id": "edits"}
NOW: dict[str, Any] = {**PAGE, "queue": False}
SYSTEM = ("system-ui", "sans-serif")  # fonts that need no download
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
CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
HOW = """This app was opened on a model, without a run. Type any caption here. A run shows the captions
of an audit as pictures; make one, and open the app on it:

    findnemo audit MODEL --prompts captions.csv --holdout holdout.csv --out run
    findnemo app run
"""
SHOWN: dict[str, Any] = {"interactive": False, "buttons": [], "format": "png"}
WRITTEN = "LAYER: NEURON NEURON-NEURON; for example 1: 4 7; 3: 12-15"
NO_NEURONS = "No neurons were found for this caption: switch any on the map"
LEGEND = (
    "<p class='legend'><i class='on'></i>on <i class='off'></i>off <i class='scaled'></i>scaled"
    " <i class='found'></i>found for this caption. A click switches a neuron off, the next one"
    " scales it, a third switches it on again. The name of a layer stands for all of it.</p>"
)
STILL: dict[str, Any] = {"interactive": False, "buttons": [], "scale": 3, "min_width": 240}
FIRST: dict[str, Any] = {"precision": 0, "minimum": 0, "min_width": 120}
NOTHING = note("No caption is chosen: choose one of the run, or examine one.")
# the data of a click in HTML of `drawing`: those of the button or the cell
CLICKS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) return trigger('click', { ...button.dataset });
  const svg = event.target.closest('svg');
  if (!svg) return;
  const box = svg.getBoundingClientRect(), columns = +svg.dataset.columns;
  const size = box.width / columns;
  const column = Math.floor((event.clientX - box.left) / size);
  const row = Math.floor((event.clientY - box.top) / size);
  const index = row * columns + column;
  if (index < +svg.dataset.width) trigger('click', { layer: svg.dataset.layer, index });
});
"""
# once the page is loaded, follow its address
ASKS = """
const query = location.search;
if (/[?&](caption|text)=/.test(query)) setTimeout(() => trigger('click', { query }), 0);
"""
# keep the address of the page equal to its link
ADDRESS = """
const follow = () => {
  const link = element.querySelector('a');
  history.replaceState(null, '', link ? link.href : location.pathname);
};
watch('value', follow);
if (element.querySelector('a')) follow();
"""
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
    """Common to all tabs: the state of a session, its epoch (see `Jobs`), and the tabs
    themselves.
    """

    chosen: gr.State
    epoch: gr.Number
    tabs: gr.Tabs


@dataclass(frozen=True)
class CaptionTab:
    """The tab of one caption.

    `values(chosen, seed)`: gives new values of the components `shown`. `make`: makes the images
    afterwards, called by `then`. `refused`: shows why something was not done.
    """

    values: Callable[..., dict[Any, Any]]
    shown: list[Any]
    make: dict[str, Any]
    refused: gr.HTML


def build(subject: Subject) -> gr.Blocks:
    """The page for a subject; `findnemo.app.launch` serves it."""
    with gr.Blocks(
        title="findnemo", analytics_enabled=False, delete_cache=(3600, 24 * 3600)
    ) as page:
        head = gr.HTML(f"<h1>findnemo</h1>{events.welcome(subject)}", js_on_load=ASKS)
        chosen = gr.State(SessionState())
        epoch = gr.Number(0, visible=False, precision=0)
        with gr.Tabs() as tabs:
            shared = Shared(chosen, epoch, tabs)
            with gr.Tab("One caption", id="one", render=False) as single:
                one = _one_caption(subject, shared)
            if subject.run is not None:
                with gr.Tab("Captions", id="captions"):
                    _captions(subject, shared, one)
                single.render()
            with gr.Tab("Any caption", id="any"):
                if subject.run is None:
                    gr.Markdown(HOW)
                _any_caption(subject, shared, one)
            if subject.run is None:
                single.render()
            else:
                with gr.Tab("Export", id="export"):
                    _export(subject, shared)
        _follow(subject, head, shared, one)

        def leave(request: gr.Request) -> None:
            events.leave(subject, _session(request))

        page.unload(leave)
    return page


def _follow(subject: Subject, head: gr.HTML, shared: Shared, one: CaptionTab) -> None:
    """Let the page show what its address requests; an address without a request starts nothing."""

    def follow(event: gr.EventData) -> Any:
        query = str((event._data or {}).get("query", ""))
        view = events.state_from_query(subject, query)
        if view is None:
            return {one.refused: ""}
        chosen, seed = view
        return {**one.values(chosen, seed), shared.chosen: chosen}

    outputs = [*one.shown, shared.chosen]
    followed = head.click(_explained(one.refused)(follow), None, outputs, **PAGE)
    turned = followed.then(lambda: gr.Tabs(selected="one"), None, shared.tabs, **NOW)
    turned.then(**one.make)


def _session(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _who(request: gr.Request, epoch: float) -> Who:
    return Who(_session(request), int(epoch))


def _tell(progress: gr.Progress) -> Tell:
    return lambda done: progress((done, None), desc="", unit="U-Net evaluations")


def _explained(
    status: gr.HTML, gone: Mapping[Any, Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An event that shows in `status` why it could not be done.

    `gone`: new values of components that would then be out of date; all others stay.
    """

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any) -> Any:
            try:
                return function(*args)
            except CancelledError:
                return {status: note("Cancelled."), **(gone or {})}
            except FindnemoError as error:
                return {status: alarm(error), **(gone or {})}

        return run

    return wrapped


def _cancel_button(subject: Subject, shared: Shared, size: Any = "lg") -> None:
    def cancel(request: gr.Request) -> int:
        return subject.jobs.cancel(_session(request))

    gr.Button("Cancel", size=size).click(cancel, None, shared.epoch, **NOW)


def _captions(subject: Subject, shared: Shared, one: CaptionTab) -> None:
    """The captions of the run as thumbnails; a click opens one."""

    def listed(search: str, kept: str, sort: str) -> tuple[str, str]:
        found = events.matching(subject, search, kept, sort)
        return note(events.counted_captions(found)), drawing.grid(events.cards(subject, found))

    told, cards = listed("", "all", "worst first")
    with gr.Row():
        search = gr.Textbox(label="Search captions", max_length=LONGEST)
        kept = gr.Dropdown(list(FILTERS), value="all", label="Show", filterable=False)
        sort = gr.Dropdown(list(SORTS), value="worst first", label="Order", filterable=False)
    count = gr.HTML(told)
    grid = gr.HTML(cards, js_on_load=CLICKS)

    def choose(event: gr.EventData) -> Any:
        chosen = events.detail(subject, _number(event, "caption")).chosen
        shown = one.values(chosen)
        return {shared.tabs: gr.Tabs(selected="one"), shared.chosen: chosen, **shown}

    asked = [search, kept, sort]
    narrowed = _explained(count, {grid: ""})(listed)
    for changed in (search.change, kept.change, sort.change):
        changed(narrowed, asked, [count, grid], trigger_mode="always_last", **PAGE)
    outputs = [*one.shown, shared.chosen, shared.tabs, count]
    grid.click(_explained(count)(choose), None, outputs, **PAGE).then(**one.make)


def _number(event: gr.EventData, name: str) -> int | None:
    """A number in the data of a click; None if it is something else."""
    said = str((event._data or {}).get(name, ""))
    return int(said) if said.isascii() and said.isdigit() and len(said) < 18 else None


def _any_caption(subject: Subject, shared: Shared, one: CaptionTab) -> None:
    """The tab for any caption, which is scored and localized."""
    text = gr.Textbox(label="Caption", lines=2, max_lines=6, max_length=LONGEST)
    does = "Score" if subject.calibration is None else "Score and find its neurons"
    with gr.Row():
        start = gr.Button(does, variant="primary")
        _cancel_button(subject, shared)
    status = gr.HTML(elem_classes="status")
    with gr.Column(visible=False) as found_here:
        result = gr.HTML()
        switch = gr.Button("Switch its neurons", size="sm")

    def examine(
        caption: str,
        epoch: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        found = events.examine(subject, _who(request, epoch), caption, _tell(progress))
        if what := events.unread(subject, caption):
            gr.Warning(what)
        chosen = events.state_of_examination(found, caption)
        return {
            **one.values(chosen),
            status: note("Done."),
            found_here: gr.Column(visible=True),
            result: events.examination_html(subject, found),
            shared.chosen: chosen,
        }

    gr.on(
        [start.click, text.submit],
        _explained(status, {found_here: gr.Column(visible=False)})(examine),
        [text, shared.epoch],
        [status, found_here, result, shared.chosen, *one.shown],
        show_progress_on=status,
        **MODEL,
    )
    opens = switch.click(lambda: gr.Tabs(selected="one"), None, shared.tabs, **NOW)
    opens.then(**one.make)


def _one_caption(subject: Subject, shared: Shared) -> CaptionTab:
    """The tab of one caption: its pictures side by side, and its neurons, switched by the slider,
    on the map or as text.
    """
    title = gr.HTML(NOTHING)
    with gr.Row():
        with gr.Column(scale=7, min_width=320):
            with gr.Row():
                slider = gr.Slider(0, 1, 0, label="", **STILL)
                seed = gr.Number(FRESH, label="First seed", **FIRST)
            alike = gr.HTML(elem_id="alike")
            status = gr.HTML(elem_classes="status")
            pictures = gr.HTML(elem_id="pictures")
        with gr.Column(scale=4, min_width=320):
            neurons = gr.HTML(js_on_load=CLICKS, elem_id="neurons")
            gr.HTML(LEGEND)
    with gr.Row():
        undo = gr.Button("Undo", size="sm")
        reset = gr.Button("All on", size="sm")
        keep = gr.Button("Save these neurons", size="sm")
        _cancel_button(subject, shared, "sm")
    refused = gr.HTML()
    file = gr.DownloadButton("Download", visible=False, variant="primary")
    with gr.Row():
        off = gr.Textbox(label="Neurons off", max_length=LONGEST, info=WRITTEN)
        scaled = gr.Textbox(label="Neurons scaled", max_length=LONGEST, info=WRITTEN)
        factor = gr.Number(edit.HALF, label="Factor", info="Of scaled neurons, -1 to 1.", step=0.05)
        apply = gr.Button("Apply", size="sm", scale=0, min_width=100)
    address = gr.HTML(js_on_load=ADDRESS)
    with gr.Accordion("Figures", open=False):
        about = gr.HTML()
    with gr.Accordion("Sheet of the audit", open=False, visible=False) as folded:
        of_sheet = "Images before and after, of the audit"
        sheet = gr.Image(show_label=False, alt_text=of_sheet, **SHOWN)

    def switched(chosen: SessionState, first: float) -> dict[Any, Any]:
        """What shows an edit, but for its images."""
        widths = subject.model.widths("all")
        count = len(chosen.order)
        stand = gr.Slider(
            maximum=max(count, 1),
            step=edit.step(chosen.order),
            value=edit.position(chosen.order, chosen.edit),
            label=f"Neurons off, of {count} found" if count else NO_NEURONS,
            interactive=bool(count),
        )
        query = events.link_to(subject, chosen, first)
        return {
            slider: stand,
            neurons: events.neuron_map(subject, chosen),
            off: edit.neurons_as_text(chosen.edit.off, widths),
            scaled: edit.neurons_as_text(chosen.edit.scaled, widths),
            factor: chosen.edit.factor,
            file: gr.DownloadButton(visible=False),
            address: f'<a class="link" href="{query}">Link to this view</a>' if query else "",
            refused: "",
        }

    def values(chosen: SessionState, first: float = FRESH) -> dict[Any, Any]:
        one = None if chosen.id is None else events.detail(subject, chosen.id)
        whole_sheet = None if one is None else one.sheet
        return {
            title: whole(chosen.caption) if one is None else one.title,
            about: "" if one is None else one.about,
            sheet: whole_sheet,
            folded: gr.Accordion(visible=whole_sheet is not None),
            pictures: events.pictures(subject, chosen, None, first),
            alike: "",
            seed: first,
            **switched(chosen, first),
        }

    def make(
        chosen: SessionState,
        first: float,
        epoch: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        compared = None
        if events.needs_images(subject, chosen, first):
            who = _who(request, epoch)
            compared = events.compare(subject, who, chosen, first, _tell(progress))
        shown = events.pictures(subject, chosen, compared, first) if chosen.caption else ""
        return {pictures: shown, alike: events.comparison_note(chosen, compared), status: ""}

    making = {
        "fn": _explained(status, {pictures: "", alike: ""})(make),
        "inputs": [shared.chosen, seed, shared.epoch],
        "outputs": [status, pictures, alike],
        "show_progress_on": status,
        "trigger_mode": "multiple",  # outdated ones stop by themselves
        **MODEL,
    }
    after = [slider, neurons, off, scaled, factor, file, address, refused]
    changes: list[tuple[list[Any], list[Any], Change, str]] = [
        ([slider.input], [slider], _by_slider, "always_last"),
        ([neurons.click], [], partial(_by_click, subject), "multiple"),
        (
            [apply.click, off.submit, scaled.submit],
            [off, scaled, factor],
            partial(_by_writing, subject),
            "once",
        ),
        ([undo.click], [], lambda chosen, _: events.undone(chosen), "multiple"),
        ([reset.click], [], lambda chosen, _: events.under_edit(chosen, NONE), "once"),
        ([seed.submit, seed.blur], [], lambda chosen, _: chosen, "once"),
    ]
    outputs = [shared.chosen, shared.epoch, *after]
    for triggers, controls, change, mode in changes:
        changing = _explained(refused)(_changing(subject, change, shared, switched))
        asked = [shared.chosen, seed, *controls]
        changed = gr.on(triggers, changing, asked, outputs, trigger_mode=mode, **EDITS)
        changed.then(**making)

    def save(chosen: SessionState, epoch: float, request: gr.Request) -> Any:
        path, said = events.save(subject, _who(request, epoch), chosen.edit)
        download = gr.DownloadButton(f"Download {path.name}", value=str(path), visible=True)
        return {refused: said, file: download}

    saving = _explained(refused, {file: gr.DownloadButton(visible=False)})(save)
    keep.click(saving, [shared.chosen, shared.epoch], [refused, file], **PRIVATE)
    about_it = [title, about, pictures, alike, sheet, folded, seed]
    return CaptionTab(values, [status, *about_it, *after], making, refused)


# the edit of what is chosen after an event, by the values of the controls that it has
Change = Callable[..., SessionState]


def _changing(
    subject: Subject,
    change: Change,
    shared: Shared,
    switched: Callable[[SessionState, float], dict[Any, Any]],
) -> Callable[..., dict[Any, Any]]:
    """An event that changes the edit, and stops the work of an earlier one."""

    def changed(
        request: gr.Request, event: gr.EventData, chosen: SessionState, first: float, *values: Any
    ) -> dict[Any, Any]:
        new = change(chosen, event, *values)
        shown = switched(new, first)
        epoch = subject.jobs.cancel(_session(request))
        return {shared.chosen: new, shared.epoch: epoch, **shown}

    return changed


def _by_slider(chosen: SessionState, event: gr.EventData, position: float) -> SessionState:
    return events.under_edit(chosen, edit_at(chosen.order, position))


def _by_click(subject: Subject, chosen: SessionState, event: gr.EventData) -> SessionState:
    layer = _number(event, "layer")
    index = _number(event, "index")
    if index is None:
        name, _ = events.neuron_at(subject, layer, 0)
        width = subject.model.widths("all")[name]
        return events.under_edit(chosen, edit.layer_clicked(chosen.edit, name, width))
    return events.under_edit(
        chosen, edit.clicked(chosen.edit, events.neuron_at(subject, layer, index))
    )


def _by_writing(
    subject: Subject,
    chosen: SessionState,
    event: gr.EventData,
    off: str,
    scaled: str,
    factor: float,
) -> SessionState:
    widths = subject.model.widths("all")
    named = edit.neurons_from_text(off, widths)
    others = edit.neurons_from_text(scaled, widths) - named
    return events.under_edit(chosen, Edit(named, others, edit.check_factor(factor)))


def _export(subject: Subject, shared: Shared) -> None:
    """The tab for exports of the cleaned model for some captions."""
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
        _explained(status)(export),
        [ids, form, factor, shared.epoch],
        [status, file],
        show_progress_on=status,
        **MODEL,
    )
