"""Figures 4 and 7: how many neurons hold a memory, per prompt and per layer, before and after
refinement (Algorithms 3 and 4).
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

import numpy as np

from findnemo.neurons import NeuronSet
from findnemo.studies._bench import Bench, Study
from findnemo.studies._figure import BLUE, GREY, count_scale, figure
from findnemo.studies._table import Cell, Table

STEPS = ("initial selection", "refined")
PAPER = {"VM": (26.5, 4), "TM": (674.5, 21)}


def fig4(bench: Bench) -> Study:
    """Sizes of the sets per prompt."""
    sets = _sets(bench)
    rows: list[list[Cell]] = []
    with figure(len(sets)) as (sheet, axes):
        for axis, (kind, pairs) in zip(axes, sets.items(), strict=True):
            before, after = (
                [len(neurons) for neurons in step] for step in zip(*pairs, strict=True)
            )
            paper = PAPER.get(kind, (None, None))
            rows.append([kind, len(pairs), median(before), median(after), *paper])
            axis.boxplot([before, after], widths=0.5, medianprops={"color": "black"})
            axis.set_xticks([1, 2], STEPS)
            count_scale(axis, max(before))
            axis.set(title=f"{kind}, n = {len(pairs)}", ylabel="neurons per prompt")
    heads = ["type", "n", "median before", "median after", "before, paper", "after, paper"]
    table = Table("Neurons per prompt", heads, rows, digits=1)
    text = "Refinement keeps few of the neurons that are unusually active."
    return Study(text, [table], {"fig4": sheet})


def fig7(bench: Bench) -> Study:
    """Where they sit."""
    sets = _sets(bench)
    layers = list(bench.model.value_layers)
    places = np.arange(len(layers))
    numbers = [str(k) for k in range(1, len(layers) + 1)]
    rows: list[list[Any]] = []
    with figure(len(sets)) as (sheet, axes):
        for axis, (kind, pairs) in zip(axes, sets.items(), strict=True):
            for step, (label, color) in enumerate(zip(STEPS, (GREY, BLUE), strict=True)):
                counts = Counter(name for pair in pairs for name, _ in pair[step])
                heights = [counts[name] for name in layers]
                rows.append([f"{kind}, {label}", *heights])
                axis.bar(places + 0.4 * step, heights, 0.4, color=color, label=label)
            axis.set_xticks(places + 0.2, numbers)
            count_scale(axis, max(max(row[1:]) for row in rows[-2:]))
            axis.set(xlabel="value layer, in forward order", ylabel="neurons, all prompts")
            axis.legend(
                title=f"{kind}, n = {len(pairs)}",
                loc="lower center",
                bbox_to_anchor=(0.5, 1),
                ncols=2,
                title_fontsize=9,
            )
    note = "Layers: " + "; ".join(f"{k} {name}" for k, name in enumerate(layers, 1)) + "."
    table = Table("Neurons per layer, summed over prompts", ["", *numbers], rows, note)
    text = "In which value layers memories sit."
    return Study(text, [table], {"fig7": sheet})


def _sets(bench: Bench) -> dict[str, list[tuple[NeuronSet, NeuronSet]]]:
    """Type -> candidates and refined set of every prompt."""
    captions = bench.memorized()
    sets: dict[str, list[tuple[NeuronSet, NeuronSet]]] = {}
    for caption, pair in zip(captions, bench.listed(captions), strict=True):
        if pair is not None:
            sets.setdefault(caption.type or "no type", []).append(pair)
    return sets
