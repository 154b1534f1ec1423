"""Table 3: how little switching neurons off changes attention on captions that are not
memorized.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from random import Random
from statistics import fmean

from findnemo.neurons import Neuron, NeuronSet
from findnemo.runs.overview import holders
from findnemo.seeds import sample_seed
from findnemo.studies._bench import Bench, Desk, Study
from findnemo.studies.table import Cell, Table
from findnemo.verification.disentanglement import attention_cosines

COUNTS = (1, 5, 10, 25, 50, 100, 150)
PROMPTS = 500
SEEDS = 3
PAPER = ">= .98 in every layer with up to 150 neurons off (500 captions, 3 seeds)"


def table3(bench: Bench) -> Study:
    """Cosine of attention outputs with and without the most shared neurons, and with as many that
    were found for no caption, on captions that are not memorized.
    """
    order = list(holders(bench.memorized_captions()))
    counts = sorted({min(count, len(order)) for count in COUNTS})
    prompts = list(bench.others[:PROMPTS])
    widths = bench.model.widths("all")
    layers = bench.layers
    sets = {("found", n): NeuronSet.of(order[:n]) for n in counts}
    sets |= {("random", n): never_found(order[:n], order, widths) for n in counts}
    compute = partial(_cosines, sets=list(sets.values()), layers=layers)
    rows: list[list[Cell]] = []
    of_prompts = bench.once("table3", lambda: bench.over("table3", compute, prompts))
    for (kind, n), row in zip(sets, zip(*of_prompts, strict=True), strict=True):
        values = [round(fmean(of_layer), 4) for of_layer in zip(*row, strict=True)]
        rows.append([kind, len(sets[kind, n]), *values, min(values)])
    note = (
        f"Captions that are not memorized: {len(prompts)} ({bench.whence(prompts)}); {SEEDS} seeds,"
        f" first timestep; layers 1 to {len(layers)} in forward order. Found: those of most"
        f" captions first, of {len(order)}. Random: as many of the same layers that were found for"
        " no caption; fewer where a layer has too few others."
        f" Published: {PAPER}."
    )
    heads = ["", "neurons off", *map(str, range(1, len(layers) + 1)), "lowest"]
    table = Table("Cosine of attention outputs", heads, rows, note)
    text = (
        "Near 1 the neurons do nothing on other captions. In the paper they do, and the memory is"
        " disentangled from the rest."
    )
    return Study(text, [table])


def never_found(
    neurons: Sequence[Neuron],
    held: Collection[Neuron],
    widths: Mapping[str, int],
    seed: int = 0,
    draw: int = 0,
) -> NeuronSet:
    """As many neurons of each layer as `neurons` has, none of `held`.

    A layer with too few others gives all of them. `widths`: layer -> its width. The `draw`s of a
    seed differ; within a draw, fewer neurons are a subset of more.

    >>> never_found([("a", 0), ("a", 1)], {("a", 0), ("a", 1)}, {"a": 4}).layers
    {'a': (2, 3)}
    """
    taken = set(held)
    layers = {}
    for name, count in Counter(name for name, _ in neurons).items():
        others = [i for i in range(widths[name]) if (name, i) not in taken]
        Random(sample_seed(seed, name, draw)).shuffle(others)
        layers[name] = others[:count]
    return NeuronSet(layers)


def _cosines(
    desk: Desk, prompt: str, sets: Sequence[NeuronSet], layers: Sequence[str]
) -> list[list[float]]:
    """A row for each set, a cosine for each layer; means over the seeds."""
    rows = attention_cosines(desk.model, prompt, sets, SEEDS, 0, layers)
    return [[row[name] for name in layers] for row in rows]
