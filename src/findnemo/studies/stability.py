"""Whether other base seeds, other wordings of a caption and other number formats find the same
neurons.
"""

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
from findnemo.runs.store import Caption
from findnemo.runs.wording import count
from findnemo.runs.work import StageAnswer
from findnemo.stats import bootstrap
from findnemo.studies._bench import Bench, Desk, Job, Study
from findnemo.studies.table import Cell, Table

SEEDS = 5
DTYPES = ("float32", "bfloat16", "float16")
ITSELF = "the caption itself"

Found = dict[str, Any]  # variant -> neurons as JSON; None if the caption is not memorized in it


def stability(bench: Bench) -> Study:
    """Localize again under each kind of change, and compare sets caption by caption, by
    intersection over union.
    """
    captions = bench.sample()
    search = bench.work.plan.search
    casts: dict[str, Model] = {}  # models in other formats, in this process during the study
    jobs = {
        (kind, c.id): Job(
            f"stability:{kind}:{search}", c, partial(_variants, kind=kind, casts=casts)
        )
        for kind in CHANGES
        for c in captions
    }
    payloads = bench.results("stability", jobs)
    found: dict[str, list[tuple[Caption, Found]]] = {
        kind: [(c, payloads[kind, c.id]) for c in captions if (kind, c.id) in payloads]
        for kind in CHANGES
    }
    note = (
        f"Search {search!r}, {count(len(captions), 'caption')}. Intersection over union of every two sets of"
        " a caption, their mean; then median and mean over captions, with a 95 % bootstrap"
        " interval. A variant in which the caption is under tau has no set, and is not compared."
    )
    rows = [_row(kind, [variants for _, variants in answers]) for kind, answers in found.items()]
    heads = ["change", "variants memorized", "captions compared"]
    heads += ["IoU, median", "IoU, mean", "interval", "same set throughout"]
    tables = [
        Table("Intersection over union", heads, rows, note),
        _by_wording([variants for _, variants in found["wording"]]),
        _frequencies(found["seed"]),
    ]
    text = (
        "An IoU of 1 means the same neurons. A paraphrase that is not memorized is no failure of"
        " the search: there is nothing to find."
    )
    return Study(text, tables)


def _variants(desk: Desk, caption: Caption, kind: str, casts: dict[str, Model]) -> StageAnswer:
    """What the search finds for a caption under every variant of a kind of change."""
    return StageAnswer(CHANGES[kind](desk, caption, casts))


def _neurons(desk: Desk, model: Model, text: str, calibration: Calibration) -> Any:
    found = localize(model, text, calibration, desk.plan.search)
    return found.neurons.to_json() if found.memorized else None


def _seeds(desk: Desk, caption: Caption, casts: dict[str, Model]) -> Found:
    found = {}
    calibration = desk.calibration
    for seed in range(calibration.settings.seed, calibration.settings.seed + SEEDS):
        moved = replace(calibration, settings=replace(calibration.settings, seed=seed))
        found[f"seed {seed}"] = _neurons(desk, desk.model, caption.text, moved)
    return found


def _wordings(desk: Desk, caption: Caption, casts: dict[str, Model]) -> Found:
    texts = {ITSELF: caption.text, **paraphrases(caption.text)}
    return {k: _neurons(desk, desk.model, text, desk.calibration) for k, text in texts.items()}


def _dtypes(desk: Desk, caption: Caption, casts: dict[str, Model]) -> Found:
    """Neurons by number format, for formats in which the device computes and the model gives no
    NaN.

    `casts`: models in other formats so far.
    """
    found = {}
    calibration = replace(desk.calibration, model="")  # rounded weights have another fingerprint
    for dtype in DTYPES:
        with suppress(FindnemoError, RuntimeError):
            if dtype not in casts:
                casts[dtype] = _cast(desk.model, dtype)
            found[dtype] = _neurons(desk, casts[dtype], caption.text, calibration)
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


def _row(kind: str, found: Sequence[Found]) -> list[Cell]:
    sets = [_sets(variants) for variants in found]
    memorized = sum(map(len, sets))
    variants = sum(map(len, found))
    values = [mean(pairwise_iou(some)) for some in sets if len(some) > 1]
    start: list[Cell] = [kind, f"{memorized} of {variants}", len(values)]
    if not values:
        return [*start, None, None, None, None]
    low, high = bootstrap(lambda x: float(x.mean()), torch.tensor(values))
    interval = f"{low:.3f} to {high:.3f}"
    same = sum(v == 1 for v in values)
    return [*start, median(values), mean(values), interval, same]


def _by_wording(found: Iterable[Found]) -> Table:
    """A line for each kind of paraphrase: how often it is memorized, and how similar its set is to
    that of the caption.
    """
    memorized = [row for row in found if row.get(ITSELF) is not None]
    kinds = dict.fromkeys(kind for row in memorized for kind in row if kind != ITSELF)
    rows: list[list[Cell]] = []
    for kind in kinds:
        pairs = [(row[ITSELF], row[kind]) for row in memorized if kind in row]
        values = [iou(NeuronSet(a), NeuronSet(b)) for a, b in pairs if b is not None]
        middle = [median(values), mean(values)] if values else [None, None]
        rows.append([kind, len(pairs), len(values), *middle])
    heads = ["wording", "captions", "memorized too"]
    heads += ["IoU with the caption's own set, median", "mean"]
    note = (
        "Wordings are rules (`findnemo.prompts.paraphrases`); one that changes nothing is left out."
    )
    return Table("Wordings", heads, rows, note)


def _frequencies(found: Iterable[tuple[Caption, Found]]) -> Table:
    """A line for each neuron of a caption: the share of base seeds that find it."""
    rows: list[list[Cell]] = []
    for caption, variants in found:
        sets = _sets(variants)
        shares = frequency(sets) if sets else {}
        for (layer, index), share in shares.items():
            times = round(share * len(sets))
            rows.append([caption.row, caption.text, layer, index, times, len(sets)])
    heads = ["row", "caption", "layer", "neuron", "found by", "of seeds"]
    note = "Base seeds on which the caption is memorized count."
    return Table("How often each neuron is found", heads, rows, note)
