"""Do other base seeds, other wordings of a caption and other number formats find the same neurons?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import mean, median
from typing import Any

import torch

from findnemo.calibration import Calibration
from findnemo.errors import FindnemoError
from findnemo.localization import frequency, iou, localize, pairwise_iou
from findnemo.models import Model, load
from findnemo.neurons import NeuronSet
from findnemo.prompts.paraphrases import paraphrases
from findnemo.runs.audit import Answer
from findnemo.runs.store import Caption
from findnemo.stats import bootstrap
from findnemo.studies._bench import Bench, Desk, Job, Study
from findnemo.studies._table import Cell, Table

SEEDS = 5
DTYPES = ("float32", "bfloat16", "float16")
ITSELF = "the caption itself"

Found = dict[str, Any]  # variant -> neurons as JSON; None where the caption is not memorized in it


def stability(bench: Bench) -> Study:
    """Each kind of change localizes anew; sets are compared caption by caption, by intersection over union."""
    captions, search = bench.sample(), bench.work.plan.search
    casts: dict[str, Model] = {}  # of this process, while the study lasts
    jobs = [
        Job(f"stability:{kind}:{search}", c, partial(_repeated, kind=kind, casts=casts))
        for kind in CHANGES
        for c in captions
    ]
    found: dict[str, dict[int, Found]] = {kind: {} for kind in CHANGES}
    kinds = [kind for kind in CHANGES for _ in captions]
    for kind, job, payload in zip(kinds, jobs, bench.results("stability", jobs), strict=True):
        if payload is not None:
            found[kind][job.caption.id] = payload
    sets = {kind: [_sets(variants) for variants in rows.values()] for kind, rows in found.items()}
    note = (
        f"Search {search!r}, {len(captions)} captions. Intersection over union of every two sets of a caption, their mean; then median and mean "
        "over captions, with a 95 % bootstrap interval. A variant in which the caption is under tau has no set, and is not compared."
    )
    rows = [_row(kind, sets[kind], found[kind].values()) for kind in sets]
    heads = [
        "change",
        "variants memorized",
        "captions compared",
        "IoU, median",
        "IoU, mean",
        "interval",
        "same set throughout",
    ]
    tables = [
        Table("Intersection over union", heads, rows, note),
        _by_wording(found["wording"].values()),
        _often({c.id: c for c in captions}, found["seed"]),
    ]
    text = (
        "An IoU of 1 means the same neurons. A paraphrase that "
        "is not memorized is no failure of the search: there is nothing to find."
    )
    return Study("Stability: do repetitions find the same neurons?", text, tables)


def _repeated(desk: Desk, caption: Caption, kind: str, casts: dict[str, Model]) -> Answer:
    """What the search finds for a caption under every variant of a kind of change."""
    return Answer(CHANGES[kind](desk, caption, casts))


def _neurons(desk: Desk, model: Model, text: str, calibration: Calibration) -> Any:
    found = localize(model, text, calibration, desk.plan.search)
    return found.neurons.to_json() if found.memorized else None


def _seeds(desk: Desk, caption: Caption, casts: dict[str, Model]) -> Found:
    made = desk.calibration
    moved = [
        replace(made, settings=replace(made.settings, seed=made.settings.seed + k))
        for k in range(SEEDS)
    ]
    return {f"seed {c.settings.seed}": _neurons(desk, desk.model, caption.text, c) for c in moved}


def _wordings(desk: Desk, caption: Caption, casts: dict[str, Model]) -> Found:
    texts = {ITSELF: caption.text, **paraphrases(caption.text)}
    return {k: _neurons(desk, desk.model, text, desk.calibration) for k, text in texts.items()}


def _dtypes(desk: Desk, caption: Caption, casts: dict[str, Model]) -> Found:
    """Those that the device can compute with, and in which the model gives numbers. `casts`: models in other formats that there are."""
    found, made = {}, replace(desk.calibration, model="")  # rounded weights: another fingerprint
    for dtype in DTYPES:
        with suppress(FindnemoError, RuntimeError):
            if dtype not in casts:
                casts[dtype] = _cast(desk.model, dtype)
            found[dtype] = _neurons(desk, casts[dtype], caption.text, made)
    return found


CHANGES: dict[str, Callable[[Desk, Caption, dict[str, Model]], Found]] = {
    "seed": _seeds,
    "wording": _wordings,
    "dtype": _dtypes,
}


def _cast(model: Model, dtype: str) -> Model:
    """A copy of the model in another number format."""
    kind = getattr(torch, dtype)
    return model if model.dtype == kind else load(copy.deepcopy(model.pipeline).to(dtype=kind))


def _sets(variants: Mapping[str, Any]) -> list[NeuronSet]:
    return [NeuronSet(found) for found in variants.values() if found is not None]


def _row(kind: str, sets: Sequence[Sequence[NeuronSet]], found: Iterable[Found]) -> list[Cell]:
    variants = [f for row in found for f in row.values()]
    values = [mean(pairwise_iou(some)) for some in sets if len(some) > 1]
    start: list[Cell] = [
        kind,
        f"{sum(f is not None for f in variants)} of {len(variants)}",
        len(values),
    ]
    if not values:
        return [*start, None, None, None, None]
    low, high = bootstrap(lambda x: float(x.mean()), torch.tensor(values))
    return [
        *start,
        median(values),
        mean(values),
        f"{low:.3f} to {high:.3f}",
        sum(v == 1 for v in values),
    ]


def _by_wording(found: Iterable[Found]) -> Table:
    """A line a kind of paraphrase: how often it is memorized, and how much its set is that of the caption itself."""
    told = [row for row in found if row.get(ITSELF) is not None]
    kinds = dict.fromkeys(kind for row in told for kind in row if kind != ITSELF)
    rows: list[list[Cell]] = []
    for kind in kinds:
        there = [row for row in told if kind in row]
        values = [
            iou(NeuronSet(row[ITSELF]), NeuronSet(row[kind]))
            for row in there
            if row[kind] is not None
        ]
        rows.append(
            [
                kind,
                len(there),
                len(values),
                *([median(values), mean(values)] if values else [None, None]),
            ]
        )
    heads = [
        "wording",
        "captions",
        "memorized too",
        "IoU with the caption's own set, median",
        "mean",
    ]
    return Table(
        "Wordings",
        heads,
        rows,
        "Wordings are rules (`findnemo.prompts.paraphrases`); one that changes nothing is left out.",
    )


def _often(captions: Mapping[int, Caption], found: Mapping[int, Found]) -> Table:
    """A line a neuron of a caption: in which share of the base seeds it was found."""
    rows: list[list[Cell]] = []
    for i, variants in found.items():
        sets = _sets(variants)
        if sets:
            rows += [
                [
                    captions[i].row,
                    captions[i].text,
                    layer,
                    index,
                    round(share * len(sets)),
                    len(sets),
                ]
                for (layer, index), share in frequency(sets).items()
            ]
    heads = ["row", "caption", "layer", "neuron", "found by", "of seeds"]
    return Table(
        "How often each neuron is found",
        heads,
        rows,
        "Base seeds on which the caption is memorized count.",
    )
