"""Figures 10 to 12: neurons that several prompts share, and the effect of each alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.runs.overview import holders
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.studies._bench import Bench, Study, by_type, first_image
from findnemo.studies.figure import picture_grid
from findnemo.studies.table import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# neurons with pictures, and captions for each
SHOWN = 3
CAPTIONS = 4
TOP = (1, 2, 3, 5, 10)  # numbers of most shared neurons, in the table of what they explain


def fig10(bench: Bench) -> Study:
    """Neurons by the number of captions that they were found for; the most frequent are switched
    off alone.
    """
    every = holders(bench.memorized_captions())
    shared = {neuron: captions for neuron, captions in every.items() if len(captions) > 1}
    number = {name: k for k, name in enumerate(bench.model.widths("all"), 1)}
    rows: list[list[Cell]] = []
    for (layer, index), captions in shared.items():
        texts = "; ".join(c.text for c in captions)
        rows.append([f"{number[layer]}", f"#{index}", len(captions), texts])
    first = {neuron: captions[:CAPTIONS] for neuron, captions in islice(shared.items(), SHOWN)}
    figures = _pictures(bench, first, number)
    text = (
        "In the paper captions of one template, or one subject, share neurons. Pictures: for each of the most"
        " frequent, above as the model is, below with this one neuron off."
    )
    if not shared:
        text += " In this run no two captions share a neuron."
    table = Table("Shared neurons", ["layer", "neuron", "captions", "which"], rows)
    return Study(text, [_explained(bench, list(every)), table], figures)


def _explained(bench: Bench, order: Sequence[Neuron]) -> Table:
    """How many captions of each type the most shared neurons explain: captions with one of them in
    their set, and captions without any other.
    """
    kinds = by_type(bench.memorized_captions(), none="no type")
    counts = [count for count in TOP if count <= len(order)]
    rows: list[list[Cell]] = []
    for count in counts:
        top = set(order[:count])
        row: list[Cell] = [count]
        for captions in kinds.values():
            sets = [set(neurons_of(c)) for c in captions]
            row += [sum(bool(s & top) for s in sets) / len(sets)]
            row += [sum(s <= top for s in sets) / len(sets)]
        rows.append(row)
    heads = ["neurons of most captions"]
    for kind, captions in kinds.items():
        heads += [f"{kind} (n = {len(captions)}): one is in its set", f"{kind}: no other is"]
    note = (
        "Shares of captions. Published: two neurons of layer 1, #25 (people) and #221 (podcast"
        " covers), explain 17 % of the VM prompts; #507 and #517 of layer 3 hold the phone cases."
    )
    return Table("Captions that the most shared neurons explain", heads, rows, note, digits=2)


def _pictures(
    bench: Bench, shared: Mapping[Neuron, Sequence[Caption]], number: Mapping[str, int]
) -> dict[str, Figure]:
    """A figure for each neuron: its captions with all neurons on, and below with this one off.

    `number`: layer -> its number.
    """
    items = [
        (caption.text, off)
        for neuron, captions in shared.items()
        for off in (EMPTY, NeuronSet.of([neuron]))
        for caption in captions
    ]
    images = iter(bench.over("fig10", first_image, items))
    figures = {}
    for k, ((layer, index), captions) in enumerate(shared.items(), 10):
        labels = ("all on", f"#{index} of\nlayer {number[layer]} off")
        rows = [(label, list(islice(images, len(captions)))) for label in labels]
        figures[f"fig{k}"] = picture_grid(rows, [c.text for c in captions], tile=1.5)
    return figures
