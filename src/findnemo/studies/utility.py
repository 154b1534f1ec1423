"""Utility: how the run's neurons change captions that are not memorized, with intervals, compared
with as many random neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.errors import EditError
from findnemo.localization import Bystanders
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.standing import all_neurons
from findnemo.runs.wording import count
from findnemo.seeds import UNTOUCHED, WANTED
from findnemo.settings import Settings
from findnemo.stats.intervals import bootstrap
from findnemo.studies._bench import Bench, Desk, Study
from findnemo.studies.figure import BLUE, GREY, RED, figure
from findnemo.studies.table import Cell, Table
from findnemo.verification import (
    RANDOM,
    Pictures,
    changes,
    distance,
    distances,
    pictured,
    random_sets,
)

if TYPE_CHECKING:
    from PIL import Image

CAPTIONS = 64
REPEATS = 300  # resamples of the bootstrap
SETS = {"fid": "FID (descriptor)", "kid": "KID (descriptor)", "clip_fid": "CLIP-FID"}
CHANGES = {  # changes of each caption
    "pixel_change": "change of pixels, of 1",
    "impact": "impact: 1 - SSIM of noise differences",
    "sscd_gen": "SSCD_gen: with against without",
    "a_clip": "A_CLIP, change",
}
NOTHING = {"sscd_gen": 1.0}  # value without any change; 0 for all others


def utility(bench: Bench) -> Study:
    """FID, KID, CLIP-FID and A_CLIP of captions that are not memorized, and how much each of their
    images changes.
    """
    measured = bench.once("utility", lambda: _measure(bench))
    _keep(bench, measured)
    n = measured["captions"]
    off = measured["neurons"]
    sets: list[Sequence[Cell]] = [
        [name, kind, one["value"], _interval(one), one.get("gap"), _interval(one.get("of_gap", {}))]
        for name, by_kind in measured["sets"].items()
        for kind, one in by_kind.items()
    ]
    changes: list[Sequence[Cell]] = [
        [CHANGES[key], kind, one["median"], _interval(one), one["ninth"]]
        for key, by_kind in measured["changes"].items()
        for kind, one in by_kind.items()
    ]
    of_sets = (
        f"Captions that are not memorized: {n} ({bench.whence(bench.others[:CAPTIONS])}), one image"
        f" each, against {count(n, 'image')} of the untouched model on other seeds. Random: mean over"
        f" {RANDOM} draws of as many other neurons of the same layers. Intervals: 95 %, paired"
        f" bootstrap over the captions ({REPEATS} resamples), shifted by the bias that repeated"
        " images give. FID is high for few images: read the difference. Its features and KID's are"
        " the copy descriptor's, not Inception's; CLIP-FID: CLIP's."
    )
    of_changes = (
        "Same caption and seed, with against without. Found less random: median over captions of"
        " the difference to the mean over the draws; where its interval holds 0, no more is seen"
        " than any neurons cost. 9 in 10 within: what so many captions stay within, counted from no"
        " change."
    )
    set_heads = ["", "neurons off", "value", "95 %", "less untouched", "95 % "]
    change_heads = ["", "neurons off", "median", "95 %", "9 in 10 within"]
    tables = [
        Table("Sets of images", set_heads, sets, of_sets),
        Table("Change of each caption", change_heads, changes, of_changes),
    ]
    text = f"What {count(off, 'neuron')} off together cost captions that are not memorized."
    figures = {"utility": _picture(measured["each"])}
    return Study(text, tables, figures)


def _keep(bench: Bench, measured: Mapping[str, Any]) -> None:
    """Keep the main figures in the run's `quality`."""
    run = bench.work.run
    known = run.meta("quality") or {"prompts": 0, "failed": 0, "neurons": measured["neurons"]}
    main = {key: measured[key] for key in ("captions", "neurons", "sets", "changes")}
    if known.get("utility") != main:
        run.set_meta("quality", known | {"utility": main})


# measuring ----------------------------------------------------------------------------------------


def _measure(bench: Bench) -> dict[str, Any]:
    neurons = all_neurons(bench.memorized_captions())
    prompts = list(bench.others[:CAPTIONS])
    draw = partial(_random_sets, seed=bench.image_settings.seed)
    (random,) = bench.over("utility, random neurons", draw, [neurons])
    sets = [EMPTY, neurons, *random]
    items = [(EMPTY, WANTED), *((off, UNTOUCHED) for off in sets)]
    made = bench.over("utility", partial(_images, prompts=prompts), items)
    real, *images = [Pictures(some, prompts, bench.work.judges) for some in made]
    changes = {}
    each = {}
    for key, (found, *drawn) in _each(bench, sets, images).items():
        middle = mean_of_draws(drawn)
        changes[key] = compared(found, middle, NOTHING.get(key, 0.0))
        each[key] = {"found": found, "random": middle}
    return {
        "captions": len(prompts),
        "neurons": len(neurons),
        "sets": _sets(real, images),
        "changes": changes,
        "each": each,
    }


def _images(
    desk: Desk, item: tuple[NeuronSet, int], prompts: Sequence[str]
) -> Sequence[Image.Image]:
    """An image of every prompt with neurons off, on one sample number."""
    neurons, sample = item
    settings = desk.plan.image_settings
    return pictured(desk.model, prompts, sample, settings, desk.judges, neurons).images


def _random_sets(desk: Desk, neurons: NeuronSet, seed: int) -> list[NeuronSet]:
    """Several sets with as many other neurons; none if a layer of which more than half was found
    has too few others.
    """
    try:
        return random_sets(desk.model, neurons, seed)
    except EditError:
        return []


def _impacts(
    desk: Desk, edits: Sequence[NeuronSet], prompts: Sequence[str], settings: Settings
) -> list[list[float]]:
    """The impact of every set on every caption."""
    bystanders = Bystanders(desk.model, prompts, settings)
    return [bystanders.changes([off])[0].tolist() for off in edits]


def _sets(real: Pictures, images: Sequence[Pictures]) -> dict[str, Any]:
    """Figure -> "untouched", "found" or "random" -> its value and its difference from untouched,
    with intervals.
    """
    count = len(real.images)
    statistics: dict[str, list[Statistic]] = {
        SETS[name]: [partial(distance, name, real, one) for one in images]
        for name in distances(real.judges)
    }
    if real.judges.alignment is not None:
        statistics["A_CLIP"] = [partial(_middle, one.fits.double()) for one in images]
    return {name: _against_untouched(of_sets, count) for name, of_sets in statistics.items()}


Statistic = Callable[[Tensor], float]  # positions of captions -> a figure


def _middle(values: Tensor, at: Tensor) -> float:
    return float(values[at].quantile(0.5))


def _cached(statistic: Statistic) -> Statistic:
    """A statistic that caches its value for each choice of captions, because every resample is used
    more than once.
    """
    cached = cache(lambda positions: statistic(torch.tensor(positions)))
    return lambda at: cached(tuple(at.tolist()))


def _gap(one: Statistic, other: Statistic, at: Tensor) -> float:
    return one(at) - other(at)


def _against_untouched(statistics: Sequence[Statistic], n: int) -> dict[str, Any]:
    """Figures of the untouched model, of the found neurons and of random draws, on the same
    resampled captions.
    """
    untouched, found, *drawn = map(_cached, statistics)
    kinds = {"found": found}
    if drawn:
        kinds["random"] = lambda at: fmean(one(at) for one in drawn)
    figures: dict[str, Any] = {"untouched": with_interval(untouched, n)}
    for kind, one in kinds.items():
        gap = with_interval(partial(_gap, one, untouched), n)
        value = gap.pop("value")
        figures[kind] = with_interval(one, n) | {"gap": value, "of_gap": gap}
    return figures


def with_interval(statistic: Statistic, n: int) -> dict[str, float]:
    """A figure of n captions with its bootstrap interval, shifted so that the mean of the resamples
    falls on the figure.

    A resample repeats captions, which biases distances between sets of images.
    """
    value = statistic(torch.arange(n))
    resampled = []

    def one(at: Tensor) -> float:
        resampled.append(statistic(at))
        return resampled[-1]

    low, high = bootstrap(one, torch.arange(n), repeats=REPEATS)
    bias = fmean(resampled) - value
    return {"value": round(value, 6), "low": round(low - bias, 6), "high": round(high - bias, 6)}


def _each(
    bench: Bench, sets: Sequence[NeuronSet], images: Sequence[Pictures]
) -> dict[str, list[list[float]]]:
    """Figure -> a list of values over captions, for each set except the first, which is empty."""
    before, *after = images
    measure = partial(_impacts, prompts=before.captions, settings=bench.calibration.settings)
    (impacts,) = bench.over("utility, impact", measure, [sets[1:]])
    changed = [changes(before, one) for one in after]
    each = {"pixel_change": [one["pixel_change"].tolist() for one in changed], "impact": impacts}
    if "sscd_gen" in changed[0]:
        each["sscd_gen"] = [one["sscd_gen"].tolist() for one in changed]
    if "a_clip_after" in changed[0]:
        each["a_clip"] = [(one["a_clip_after"] - one["a_clip_before"]).tolist() for one in changed]
    return {key: [[round(x, 6) for x in row] for row in rows] for key, rows in each.items()}


def mean_of_draws(drawn: Sequence[Sequence[float]]) -> list[float]:
    """The mean over random draws for each caption."""
    return [fmean(values) for values in zip(*drawn, strict=True)]


def compared(
    found: Sequence[float], random: Sequence[float], nothing: float
) -> dict[str, dict[str, float]]:
    """Medians over captions, and the median difference of each caption from what random neurons do
    to it.

    `random`: empty if none were drawn.
    """
    medians = {"found": _median(found, nothing)}
    if random:
        gaps = [f - r for f, r in zip(found, random, strict=True)]
        medians["random"] = _median(random, nothing)
        medians["found less random"] = _median(gaps, 0.0)
    return medians


def _median(values: Sequence[float], nothing: float) -> dict[str, float]:
    """The median with its bootstrap interval, and the distance from `nothing` within which nine in
    ten captions stay.
    """
    rows = torch.tensor(list(values), dtype=torch.float64)
    low, high = bootstrap(lambda x: float(x.quantile(0.5)), rows)
    by_change = rows[(rows - nothing).abs().argsort()]
    ninth = -(-9 * len(rows) // 10) - 1
    return {"median": median(values), "low": low, "high": high, "ninth": float(by_change[ninth])}


def _interval(one: Mapping[str, float]) -> str | None:
    return f"[{one['low']:.3g}, {one['high']:.3g}]" if "low" in one else None


def _picture(each: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """Draw the distribution over captions: the share of captions that change at most this much."""
    with figure(len(each), width=2.6, height=2.3) as (sheet, axes):
        for axis, (key, by_kind) in zip(axes, each.items(), strict=True):
            for kind, color in (("found", RED), ("random", GREY)):
                values = sorted(by_kind[kind])
                shares = [k / len(values) for k in range(1, len(values) + 1)]
                if values:
                    axis.step(values, shares, where="post", color=color, label=kind)
            axis.axvline(NOTHING.get(key, 0.0), color=BLUE, linewidth=0.6)
            axis.set(xlabel=CHANGES[key], ylim=(0, 1.02))
        axes[0].set(ylabel="share of captions")
        axes[0].legend()
    return sheet
