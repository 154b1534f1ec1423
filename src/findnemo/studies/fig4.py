"""Figures 4 and 7: how many neurons hold a memory, per prompt and per layer, before and after refinement (Algorithms 3 and 4)."""

from __future__ import annotations

from statistics import median
from typing import Any

from findnemo.errors import InputError
from findnemo.neurons import NeuronSet
from findnemo.studies._bench import Bench, Study
from findnemo.studies._figure import BLUE, GREY, count_scale, figure
from findnemo.studies._table import Cell, Table

PAPER = {"VM": (26.5, 4), "TM": (674.5, 21)}


def fig4(bench: Bench) -> Study:
    """Sizes of the sets per prompt."""
    sets = _sets(bench)
    rows: list[list[Cell]] = []
    with figure(max(1, len(sets))) as (made, axes):
        for axis, (kind, pairs) in zip(axes, sets.items(), strict=True):
            before, after = [len(a) for a, _ in pairs], [len(b) for _, b in pairs]
            rows.append(
                [kind, len(pairs), median(before), median(after), *PAPER.get(kind, (None, None))]
            )
            axis.boxplot([before, after], widths=0.5, medianprops={"color": "black"})
            axis.set_xticks([1, 2], ["initial selection", "refined"])
            count_scale(axis, max(before))
            axis.set(title=f"{kind}, n = {len(pairs)}", ylabel="neurons per prompt")
    heads = ["type", "n", "median before", "median after", "before, paper", "after, paper"]
    text = "Refinement keeps few of the neurons that are unusually active."
    return Study(
        "Figure 4: neurons per prompt",
        text,
        [Table("Neurons per prompt", heads, rows, digits=1)],
        {"fig4": made},
    )


def fig7(bench: Bench) -> Study:
    """Where they sit."""
    sets, layers = _sets(bench), list(bench.model.value_layers)
    rows: list[list[Any]] = []
    with figure(max(1, len(sets))) as (made, axes):
        for axis, (kind, pairs) in zip(axes, sets.items(), strict=True):
            for which, (label, color) in enumerate(
                (("initial selection", GREY), ("refined", BLUE))
            ):
                counts = [
                    sum(len(pair[which].layers.get(name, ())) for pair in pairs) for name in layers
                ]
                rows.append([f"{kind}, {label}", *counts])
                axis.bar(
                    [k + 0.4 * which for k in range(len(layers))],
                    counts,
                    0.4,
                    color=color,
                    label=label,
                )
            axis.set_xticks(
                [k + 0.2 for k in range(len(layers))], [str(k + 1) for k in range(len(layers))]
            )
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
    table = Table(
        "Neurons per layer, summed over prompts",
        ["", *map(str, range(1, len(layers) + 1))],
        rows,
        note,
    )
    return Study(
        "Figure 7: neurons per layer",
        "In which value layers memories sit.",
        [table],
        {"fig7": made},
    )


def _sets(bench: Bench) -> dict[str, list[tuple[NeuronSet, NeuronSet]]]:
    """Type -> candidates and refined set of every prompt."""
    captions = bench.memorized()
    sets: dict[str, list[tuple[NeuronSet, NeuronSet]]] = {}
    for caption, pair in zip(captions, bench.listed(captions), strict=True):
        if pair is not None:
            sets.setdefault(caption.type or "no type", []).append(pair)
    if not sets:
        raise InputError("this run has no captions with neurons: there are no sets to count")
    return sets
