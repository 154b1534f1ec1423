"""Table 4: ablations of the published procedure, on the captions of the sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

from findnemo.calibration import Calibration, calibrate
from findnemo.neurons import NeuronSet
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.studies._bench import Bench, Study
from findnemo.studies._nemo import listing, with_tau
from findnemo.studies._published import TABLE4
from findnemo.studies._rows import comparison
from findnemo.studies._table import Cell, Table

TAUS = {"tau = mean - 1 std": -1.0, "tau = mean": 0.0, "tau = mean + 2 std": 2.0}
FACTORS = {"scaled by .75": 0.75, "scaled by .5": 0.5, "scaled by .25": 0.25}
HOLDOUT = 64  # unrelated captions on which the threshold with guidance is calibrated


def table4(bench: Bench) -> Study:
    """Each ablation localizes with Algorithms 1 to 4 and makes images with what it finds off."""
    captions = bench.sample()
    guided = _guided(bench)
    plain = bench.calibration
    variants: dict[str, Callable[[Caption], tuple[NeuronSet, float]]] = {
        "NeMo": lambda c: (_found(bench, "listing", c, plain)[1], 0.0),
        "without refinement": lambda c: (_found(bench, "listing", c, plain)[0], 0.0),
        "without top-k": lambda c: (_found(bench, "no-top-k", c, plain, top_k=False)[1], 0.0),
        "guidance in detection": lambda c: (_found(bench, "guided", c, guided)[1], 0.0),
        **{n: _at_tau(bench, n, with_tau(plain, d)) for n, d in TAUS.items()},
        **{n: lambda c, f=f: (_found(bench, "listing", c, plain)[1], f) for n, f in FACTORS.items()},  # type: ignore[misc]
        "findnemo's search": lambda c: (neurons_of(c), 0.0),
    }
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for k, (name, find) in enumerate(variants.items()):
        bench.say("table4", k, len(variants))
        for caption in captions:
            neurons, factor = find(caption)
            payload = bench.off(caption, neurons, factor)
            if payload is not None:
                rows.setdefault(name, {}).setdefault(caption.type or "", []).append(payload)
    bench.say("table4", len(variants), len(variants))
    note = f"tau = {plain.tau:.3f}; with guidance {guided.settings.guidance:g} in detection and in calibration tau = {guided.tau:.3f}. "
    note += ", ".join(f"{n} = {with_tau(plain, d).tau:.3f}" for n, d in TAUS.items()) + "; no score exceeds 1."
    text = (
        "What refinement, top-k candidates, the threshold and guidance contribute, and what it does to scale neurons instead of switching "
        "them off. Captions that are not memorized in an ablation count with no neuron."
    )
    return Study("Table 4: ablations", text, [comparison("Ablations", rows, TABLE4, note), _unrelated(bench)])


def _found(bench: Bench, name: str, caption: Caption, calibration: Calibration, **options: Any) -> tuple[NeuronSet, NeuronSet]:
    """Candidates and refined neurons of an ablation, computed once."""
    payload = bench.kept(f"nemo:{name}", caption, lambda c: listing(bench.model, c.text, calibration, **options))
    return NeuronSet((payload or {}).get("candidates")), NeuronSet((payload or {}).get("refined"))


def _at_tau(bench: Bench, name: str, calibration: Calibration) -> Callable[[Caption], tuple[NeuronSet, float]]:
    return lambda caption: (_found(bench, name, caption, calibration)[1], 0.0)


def _guided(bench: Bench) -> Calibration:
    """The calibration with guidance in the noise differences: its own threshold, which the released code forgets."""
    settings = replace(bench.calibration.settings, guidance=bench.image_settings.guidance)

    def tau() -> float:
        return calibrate(bench.model, list(bench.unrelated[:HOLDOUT]), settings=settings, precision=None).tau

    return replace(bench.calibration, settings=settings, tau=bench.once("guided tau", tau))


def _unrelated(bench: Bench) -> Table:
    """How many captions that are not memorized give neurons, and how many."""

    def count() -> list[int]:
        found = [listing(bench.model, prompt, bench.calibration) for prompt in bench.unrelated]
        return [len(NeuronSet(one["refined"])) for one in found]

    sizes = bench.once("unrelated", count)
    some = [size for size in sizes if size]
    rows: list[list[Cell]] = [
        ["this run", len(sizes), len(sizes) - len(some), f"{median(some):g}" if some else None],
        ["paper", 500, 442, "62"],
    ]
    return Table("Captions that are not memorized", ["", "captions", "without a neuron", "median neurons of the others"], rows)
