"""Table 3: how little switching neurons off changes attention on captions that are not memorized."""

from __future__ import annotations

from findnemo.neurons import NeuronSet
from findnemo.runs.standing import all_neurons
from findnemo.studies._bench import NONE_THERE, Bench, Study
from findnemo.studies._table import Table
from findnemo.verification.disentanglement import attention_cosine

SHARES = (0.1, 0.25, 0.5, 1.0)
PROMPTS = 16
PAPER = ">= .98 with up to 150 neurons off"


def table3(bench: Bench) -> Study:
    """Cosine of attention outputs with against without the run's neurons, for unrelated captions."""
    found = list(all_neurons(bench.work.run.captions()))
    counts = sorted({max(1, round(share * len(found))) for share in SHARES}) if found else []
    rows = (
        bench.once("table3", lambda: [_row(bench, NeuronSet.of(found[:count])) for count in counts])
        if bench.others
        else []
    )
    layers = list(bench.model.value_layers)
    note = (
        f"Captions that are not memorized: {bench.whence(bench.others[:PROMPTS]) if bench.others else NONE_THERE}; first timestep, one seed; layers 1 to {len(layers)} in forward order. "
        f"Published: {PAPER}."
    )
    table = Table(
        "Cosine of attention outputs",
        ["neurons off", *map(str, range(1, len(layers) + 1)), "lowest"],
        rows,
        note,
    )
    text = (
        "Near 1 the neurons do nothing on other captions: the memory is disentangled from the rest."
    )
    return Study("Table 3: disentanglement", text, [table])


def _row(bench: Bench, neurons: NeuronSet) -> list[float | int]:
    cosines = attention_cosine(bench.model, list(bench.others[:PROMPTS]), neurons)
    values = [round(float(cosines[name]), 4) for name in bench.model.value_layers]
    return [len(neurons), *values, min(values)]
