"""Figures 10 to 12: neurons that several prompts share, and what each does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from findnemo.edits import deactivate
from findnemo.images import generate
from findnemo.neurons import Neuron, NeuronSet
from findnemo.runs.overview import holders
from findnemo.runs.store import Caption
from findnemo.seeds import FRESH
from findnemo.studies._bench import Bench, Study
from findnemo.studies._figure import picture_grid
from findnemo.studies._table import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, CAPTIONS = 3, 4  # neurons with pictures, captions of each


def fig10(bench: Bench) -> Study:
    """Neurons by the number of captions that they were found for, with the most frequent ones switched off alone."""
    shared = [
        (neuron, captions)
        for neuron, captions in holders(bench.memorized()).items()
        if len(captions) > 1
    ]
    layers = list(bench.model.layers_of("all"))
    rows: list[list[Cell]] = [
        [
            f"{layers.index(name) + 1}",
            f"#{index}",
            len(captions),
            "; ".join(c.text for c in captions),
        ]
        for (name, index), captions in shared
    ]
    figures = {
        f"fig{10 + k}": _pictures(bench, neuron, captions[:CAPTIONS])
        for k, (neuron, captions) in enumerate(shared[:SHOWN])
    }
    note = (
        "Published: #25 of layer 1 (people) and #221 (podcast covers) explain 17 % of the verbatim captions; #507 and #517 of layer 3 hold "
        "the phone cases."
    )
    text = (
        "Captions of one template, or one subject, share neurons. Pictures: for each of the most frequent, above as the model is, below with this one "
        "neuron off."
    )
    if not shared:
        text += " In this run no two captions share a neuron."
    table = Table("Shared neurons", ["layer", "neuron", "captions", "which"], rows, note)
    return Study("Figures 10 to 12: shared neurons", text, [table], figures)


def _pictures(bench: Bench, neuron: Neuron, captions: list[Caption]) -> Figure:
    before = [generate(bench.model, c.text, [FRESH], bench.image_settings)[0] for c in captions]
    with deactivate(bench.model, NeuronSet.of([neuron])):
        after = [generate(bench.model, c.text, [FRESH], bench.image_settings)[0] for c in captions]
    number = list(bench.model.layers_of("all")).index(neuron[0]) + 1
    heads = [c.text for c in captions]
    return picture_grid(
        [("all on", before), (f"#{neuron[1]} of\nlayer {number} off", after)], heads, tile=1.5
    )
