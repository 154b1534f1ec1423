"""Table 3: how little switching neurons off changes attention on
captions that are not memorized.
"""

from __future__ import annotations

from functools import partial

from findnemo.neurons import NeuronSet
from findnemo.runs.standing import all_neurons
from findnemo.studies._bench import NONE_THERE, Bench, Desk, Study
from findnemo.studies._table import Table
from findnemo.verification.disentanglement import attention_cosine

SHARES = (0.1, 0.25, 0.5, 1.0)
PROMPTS = 16
PAPER = ">= .98 with up to 150 neurons off"


def table3(bench: Bench) -> Study:
    """Cosine of attention outputs with against without the run's
    neurons, for unrelated captions.
    """
    found = list(all_neurons(bench.work.run.captions()))
    counts = sorted({max(1, round(share * len(found))) for share in SHARES}) if found else []
    prompts = list(bench.others[:PROMPTS])
    layers = bench.layers
    name = "table3" if layers == list(bench.model.widths()) else "table3:all"
    compute = partial(_row, prompts=prompts, layers=layers)
    sets = [NeuronSet.of(found[:count]) for count in counts]
    rows = bench.once(name, lambda: bench.over("table3", compute, sets)) if prompts else []
    others = bench.whence(prompts) if prompts else NONE_THERE
    note = (
        f"Captions that are not memorized: {others}; first timestep, one seed; layers 1 to"
        f" {len(layers)} in forward order. Published: {PAPER}."
    )
    heads = ["neurons off", *map(str, range(1, len(layers) + 1)), "lowest"]
    table = Table("Cosine of attention outputs", heads, rows, note)
    text = (
        "Near 1 the neurons do nothing on other captions: the memory is disentangled from the rest."
    )
    return Study(text, [table])


def _row(
    desk: Desk, neurons: NeuronSet, prompts: list[str], layers: list[str]
) -> list[float | int]:
    cosines = attention_cosine(desk.model, prompts, neurons, layers=layers)
    values = [round(cosines[name], 4) for name in layers]
    return [len(neurons), *values, min(values)]
