"""Figures 4 and 7: how many neurons hold a memory, and in which layers.

Figure 4: the neurons that NeMo finds. Figure 7: those before and after refinement (Algorithms 3 and
4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from findnemo.neurons import EMPTY, NeuronSet
from findnemo.studies._bench import Bench, Study
from findnemo.studies.figure import BLUE, GREEN, RED, count_scale, figure
from findnemo.studies.table import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = ("initial selection", "refined")
# bounds of groups of prompts by number of neurons
EDGES = (1, 2, 3, 4, 5, 6, 11, 21, 50, 100, 200, 500)
MEDIANS = {"VM": (26.5, 4), "TM": (674.5, 21)}  # published medians of both STEPS
# published shares of prompts with one neuron (a number of prompts), five or fewer, fifty or more
SHARES = {"VM": ("28 prompts", "2/3", None), "TM": (None, ".30", "1/3")}

Sets = dict[str, list[NeuronSet]]  # type -> the set of every prompt


def fig4(bench: Bench) -> Study:
    """a: number of prompts by number of neurons. b: mean number of neurons per layer and prompt."""
    _, refined = steps = _sets(bench)
    rows: list[list[Cell]] = []
    for kind, sets in refined.items():
        sizes = [len(s) for s in sets]
        few = [sum(size <= most for size in sizes) for most in (1, 5)]
        counts = [*few, sum(size >= 50 for size in sizes)]
        shares = [count / len(sizes) for count in counts]
        paper = SHARES.get(kind, (None, None, None))
        rows.append([kind, len(sizes), median(sizes), counts[0], *shares, *paper])
    heads = ["type", "prompts", "median", "with one neuron", "share with one", "five or fewer"]
    heads += ["fifty or more", "one, paper", "five or fewer, paper", "fifty or more, paper"]
    a = Table("a: neurons per prompt", heads, rows, _missing(bench, steps), digits=2)
    b = _by_layer("b: mean neurons per layer and prompt", bench, {"": refined})
    text = (
        "In the paper few neurons hold a memory, often a single one, and fewer hold a verbatim one"
        " than a template. Neurons: NeMo's, after refinement."
    )
    return Study(text, [a, b], {"fig4": _panels(bench, {"": refined})})


def fig7(bench: Bench) -> Study:
    """The panels of Figure 4 before and after refinement."""
    steps = _sets(bench)
    named = dict(zip(STEPS, steps, strict=True))
    rows: list[list[Cell]] = []
    for kind in steps[0]:
        medians = [median(len(s) for s in of_type[kind]) for of_type in steps]
        rows.append([kind, len(steps[0][kind]), *medians, *MEDIANS.get(kind, (None, None))])
    heads = ["type", "prompts", "median before", "median after", "before, paper", "after, paper"]
    a = Table("Neurons per prompt", heads, rows, _missing(bench, steps), digits=1)
    b = _by_layer("Mean neurons per layer and prompt", bench, named)
    text = "In the paper refinement keeps few of the neurons that are unusually active."
    return Study(text, [a, b], {"fig7": _panels(bench, named)})


def _sets(bench: Bench) -> tuple[Sets, Sets]:
    """Candidates and refined sets of the prompts that the listing calls memorized."""
    captions = bench.memorized_captions()
    found = bench.listed_neurons(captions)
    before: Sets = {}
    after: Sets = {}
    for caption in captions:
        candidates, refined = found.get(caption.id, (EMPTY, EMPTY))
        if candidates:
            before.setdefault(caption.type or "no type", []).append(candidates)
            after.setdefault(caption.type or "no type", []).append(refined)
    return before, after


def _missing(bench: Bench, steps: Sequence[Sets]) -> str:
    left = len(bench.memorized_captions()) - sum(map(len, steps[0].values()))
    return f"Left out: {left}, for which the listing finds no neurons." if left else ""


def _means(sets: Sequence[NeuronSet], layers: Sequence[str]) -> list[float]:
    return [fmean(len(s.layers.get(name, ())) for s in sets) for name in layers]


def _by_layer(title: str, bench: Bench, steps: dict[str, Sets]) -> Table:
    """A line for each step and type, for the layers that the listing searches."""
    layers = list(bench.model.widths())
    rows: list[list[Cell]] = [
        [f"{kind}, {step}" if step else kind, *_means(sets, layers)]
        for step, by_kind in steps.items()
        for kind, sets in by_kind.items()
    ]
    note = "Layers: " + "; ".join(f"{k} {name}" for k, name in enumerate(layers, 1)) + "."
    return Table(title, ["", *(str(k) for k in range(1, len(layers) + 1))], rows, note)


def _panels(bench: Bench, steps: dict[str, Sets]) -> Figure:
    """A row a step: prompts per number of neurons, and mean neurons per layer."""
    layers = list(bench.model.widths())
    most = max((len(s) for of in steps.values() for sets in of.values() for s in sets), default=1)
    edges = [edge for edge in EDGES if edge <= most] + [most + 1]
    groups = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(edges)]
    numbers = [str(k) for k in range(1, len(layers) + 1)]
    with figure(2, len(steps), width=3.7, height=2.5) as (sheet, axes):
        rows = zip(axes[::2], axes[1::2], steps.items(), strict=True)
        for left, right, (step, by_kind) in rows:
            heights = {
                kind: [sum(a <= len(s) < b for s in sets) for a, b in pairwise(edges)]
                for kind, sets in by_kind.items()
            }
            _bars(left, groups, heights, {k: f"{k}, n = {len(s)}" for k, s in by_kind.items()})
            left.set(xlabel="neurons", ylabel="prompts", title=step)
            left.tick_params("x", labelrotation=45 if len(groups) > 7 else 0)
            means = {kind: _means(sets, layers) for kind, sets in by_kind.items()}
            _bars(right, numbers, means, dict.fromkeys(means))
            top = max((max(row) for row in means.values()), default=1.0)
            if top > 20:
                count_scale(right, top)
            right.set(xlabel="value layer, in forward order", ylabel="mean neurons", title=step)
            left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=3)
            left.yaxis.get_major_locator().set_params(integer=True)
    return sheet


def _bars(axis: Any, ticks: Sequence[str], heights: dict[str, Any], labels: dict[str, Any]) -> None:
    """Draw the bars of all types side by side."""
    width = 0.8 / max(len(heights), 1)
    for k, (kind, color) in enumerate(zip(heights, cycle((RED, BLUE, GREEN)), strict=False)):
        places = [place + k * width for place in range(len(ticks))]
        axis.bar(places, heights[kind], width, color=color, label=labels[kind])
    axis.set_xticks([place + 0.4 - width / 2 for place in range(len(ticks))], ticks)
