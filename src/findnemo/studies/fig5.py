"""Figures 5a and 8: image quality by the number of neurons off.

Figure 5b: the factor by which neurons are scaled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache, partial
from statistics import fmean, stdev
from typing import Any

from findnemo.errors import InputError
from findnemo.metrics.kind import is_memory
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.overview import holders
from findnemo.runs.standing import neurons_of, switched_off
from findnemo.runs.wording import count
from findnemo.seeds import UNTOUCHED, WANTED
from findnemo.studies._bench import Bench, Study
from findnemo.studies._quality import FIGURES, Features, features_and_fits, figures
from findnemo.studies.figure import BLUE, GREY, RED, figure, line
from findnemo.studies.published import EFFECTS
from findnemo.studies.rows import medians
from findnemo.studies.table import Table
from findnemo.studies.table3 import never_found

SHARES = (0.25, 0.5, 1.0)  # shares of the neurons that go off
MOST = 750  # neurons
SEEDS = 5
FACTORS = (1.0, 0.75, 0.5, 0.25, 0.0, -0.5, -1.0)


def fig5a(bench: Bench) -> Study:
    """FID, KID, CLIP-FID and A_CLIP of images against real pictures, with more and more of the
    run's neurons off, and with as many random ones; mean and deviation over five seeds.
    """
    reference = bench.reference
    pictures = reference.pictures
    if len(pictures) == 1:
        raise InputError("needs real pictures, 2 or more: there is 1 (--reference DIR)")
    prompts = _prompts(bench)
    rows = _quality(bench, prompts)
    look = "descriptor" if reference.inception is None else "Inception"
    heads = [f"{name} ({look})" if name in ("FID", "KID") else name for name in FIGURES]
    with figure(len(heads), width=2.6, height=2.3) as (sheet, axes):
        for k, (axis, head) in enumerate(zip(axes, heads, strict=True)):
            cells = [(kind, n, cell) for kind, n, *row in rows if (cell := row[k]) is not None]
            for kind, color in (("found", RED), ("random", GREY)):
                points = [(n, *cell) for of, n, cell in cells if of in (kind, "none")]
                if points:
                    x, y, deviation = zip(*points, strict=True)
                    axis.errorbar(
                        x, y, deviation, fmt="o-", color=color, label=kind, markersize=3, capsize=2
                    )
            if cells:  # from zero, so that a flat line looks flat
                low = min(mean - deviation for *_, (mean, deviation) in cells)
                high = max(mean + deviation for *_, (mean, deviation) in cells)
                axis.set_ylim(min(0, 1.2 * low), max(1.2 * high, 0.001))
            axis.set(xlabel="neurons off", title=head)
        axes[0].legend()
    against = (
        f"{len(pictures)} reference pictures"
        if pictures
        else f"{count(len(prompts), 'image')} of the untouched model on another seed (in the paper real"
        " pictures stand there: --reference)"
    )
    whence = "those of the reference pictures" if _own(bench) else bench.whence(prompts)
    note = (
        f"{count(len(prompts), 'caption')} ({whence}), one image each and seed, against {against}. Mean ±"
        f" standard deviation over {SEEDS} seeds, each with random neurons of its own; they are as"
        " many of each layer, none of the run's. FID is biased upwards for few images: compare"
        " within the table. In the paper FID and KID on COCO stay flat up to 750 neurons off."
    )
    shown = [
        [kind, n, *(None if cell is None else _plus_minus(*cell) for cell in row)]
        for kind, n, *row in rows
    ]
    table = Table("Quality", ["", "neurons off", *heads], shown, note)
    text = "What the neurons cost other captions. Those of most captions go off first."
    return Study(text, [table], {"fig5a": sheet})


def _plus_minus(mean: float, deviation: float) -> str:
    return f"{mean:.3g} ± {deviation:.2g}"


def _own(bench: Bench) -> list[str]:
    """The captions of the reference pictures, without memorized ones."""
    memories = {c.text for c in bench.work.run.captions() if is_memory(c.type)}
    memories |= {c.text for c in bench.memorized_captions()}
    captions = [p.caption for p in bench.reference.pictures if p.caption]
    return [text for text in dict.fromkeys(captions) if text not in memories]


def _prompts(bench: Bench) -> list[str]:
    """Captions to make images of: those of the reference pictures, if they have any."""
    prompts = list(_own(bench) or bench.others)[: bench.reference.captions]
    if len(prompts) < 2:
        raise InputError(
            f"needs captions that are not memorized, 2 or more: there are {len(prompts)}"
            " (--unrelated FILE, or --reference DIR with captions)"
        )
    return prompts


def _quality(bench: Bench, prompts: Sequence[str]) -> list[list[Any]]:
    """A row for each set of neurons: its kind, its size, and mean and deviation of each of
    FIGURES.
    """
    order = list(holders(c for c in bench.memorized_captions() if len(switched_off(c))))
    held = set(order)
    most = order[:MOST]
    counts = sorted({round(share * len(most)) for share in SHARES} - {0})
    kinds = [("none", 0), *((kind, n) for n in counts for kind in ("found", "random"))]
    reference = bench.reference
    compute = partial(
        features_and_fits,
        prompts=prompts,
        settings=bench.image_settings,
        inception=reference.inception,
    )
    judges = bench.work.judges
    widths = bench.model.widths("all")

    @cache
    def real() -> Features:
        if reference.pictures:
            return reference.features(judges)
        return bench.over("fig5a, reference", compute, [(EMPTY, WANTED)])[0][0]

    def of_seed(k: int) -> dict[str, Any]:
        real()  # refuse unreadable pictures before work begins
        sets = [
            never_found(most[:n], held, widths, bench.image_settings.seed, k)
            if kind == "random"
            else NeuronSet.of(most[:n])
            for kind, n in kinds
        ]
        items = [(neurons, UNTOUCHED + k) for neurons in sets]
        found = bench.over(f"fig5a, seed {k + 1} of {SEEDS}", compute, items)
        return {"with": about, "rows": [figures(real(), *one) for one in found]}

    about = reference.facts(judges) | {
        "captions": prompts,
        "images": bench.image_settings.to_json(),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    known = [bench.once(f"fig5a:{digest}:{k}", partial(of_seed, k)) for k in range(SEEDS)]
    seeds = [one["rows"] for one in known]
    return [
        [kind, n, *(_over(values) for values in zip(*rows, strict=True))]
        for (kind, n), rows in zip(kinds, zip(*seeds, strict=True), strict=True)
    ]


def _over(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and deviation; None if the judge is missing."""
    found = [value for value in values if value is not None]
    return (fmean(found), stdev(found)) if found else None


def fig5b(bench: Bench) -> Study:
    """The found neurons scaled by factors from 1 (unchanged) over 0 (off) to negative ones."""
    captions = bench.sample()
    cases = {(factor, c.id): (c, neurons_of(c), factor) for factor in FACTORS for c in captions}
    found = bench.off("fig5b", cases)
    lines = {}
    rows = []
    for factor in FACTORS:
        payloads = [payload for (of, _), payload in found.items() if of == factor]
        lines[factor] = medians(payloads)
        rows.append([f"{factor:g}", len(payloads), *lines[factor].values()])
    with figure() as (sheet, (axis,)):
        for (key, label), color in zip(EFFECTS.items(), (RED, BLUE, GREY), strict=False):
            points = [(f, y) for f, effects in lines.items() if (y := effects[key]) is not None]
            line(axis, points, color, label)
        axis.set(xlabel="factor", ylabel="similarity, median")
        axis.legend()
    heads = ["factor", "captions", *EFFECTS.values()]
    note = "Published for VM, factors .75, .5, .25, 0: SSCD_orig .79, .62, .20, .09."
    return Study(
        "In the paper weakened neurons mitigate partly, and negative factors add nothing to switching"
        " them off.",
        [Table("Scaled neurons", heads, rows, note)],
        {"fig5b": sheet},
    )
