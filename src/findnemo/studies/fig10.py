"""Figures 10 to 12: neurons that several prompts share, and what each does by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from findnemo.edits import deactivate
from findnemo.images import ImageSettings, generate
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.runs.overview import holders
from findnemo.runs.store import Caption
from findnemo.seeds import FRESH
from findnemo.studies._bench import Bench, Desk, Study
from findnemo.studies._figure import picture_grid
from findnemo.studies._table import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

# neurons with pictures, captions of each
SHOWN = 3
CAPTIONS = 4


def fig10(bench: Bench) -> Study:
    """Neurons by the number of captions that they were found for, with the most frequent
    ones switched off alone.
    """
    every = holders(bench.memorized())
    shared = {neuron: captions for neuron, captions in every.items() if len(captions) > 1}
    number = {name: k for k, name in enumerate(bench.model.widths("all"), 1)}
    rows: list[list[Cell]] = []
    for (layer, index), captions in shared.items():
        texts = "; ".join(c.text for c in captions)
        rows.append([f"{number[layer]}", f"#{index}", len(captions), texts])
    first = {neuron: captions[:CAPTIONS] for neuron, captions in islice(shared.items(), SHOWN)}
    figures = _pictures(bench, first, number)
    note = (
        "Published: #25 of layer 1 (people) and #221 (podcast covers) explain 17 % of the verbatim"
        " captions; #507 and #517 of layer 3 hold the phone cases."
    )
    text = (
        "Captions of one template, or one subject, share neurons. Pictures: for each of the most"
        " frequent, above as the model is, below with this one neuron off."
    )
    if not shared:
        text += " In this run no two captions share a neuron."
    table = Table("Shared neurons", ["layer", "neuron", "captions", "which"], rows, note)
    return Study(text, [table], figures)


def _pictures(
    bench: Bench, shared: Mapping[Neuron, Sequence[Caption]], number: Mapping[str, int]
) -> dict[str, Figure]:
    """A figure a neuron: its captions with all neurons on, and below with this one off.

    `number`: of each layer.
    """
    items = [
        (caption.text, off)
        for neuron, captions in shared.items()
        for off in (EMPTY, NeuronSet.of([neuron]))
        for caption in captions
    ]
    images = iter(bench.over("fig10", partial(_image, settings=bench.image_settings), items))
    figures = {}
    for k, ((layer, index), captions) in enumerate(shared.items(), 10):
        labels = ("all on", f"#{index} of\nlayer {number[layer]} off")
        rows = [(label, list(islice(images, len(captions)))) for label in labels]
        figures[f"fig{k}"] = picture_grid(rows, [c.text for c in captions], tile=1.5)
    return figures


def _image(desk: Desk, item: tuple[str, NeuronSet], settings: ImageSettings) -> Image.Image:
    text, off = item
    with deactivate(desk.model, off):
        return generate(desk.model, text, [FRESH], settings)[0]
