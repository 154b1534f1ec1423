"""Figures 5a and 8: image quality against the number of neurons off. Figure 5b: the factor by which neurons are scaled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from findnemo.errors import InputError
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.runs.overview import holders
from findnemo.runs.standing import neurons_of, switched_off
from findnemo.seeds import UNTOUCHED, WANTED, sample_seed
from findnemo.studies._bench import Bench, Study
from findnemo.studies._figure import BLUE, GREY, RED, figure
from findnemo.studies._images import EFFECTS, images_with, medians
from findnemo.studies._table import Table
from findnemo.verification import Pictures, distance, distances

SHARES = (0.0, 0.25, 0.5, 1.0)
IMAGES = 48
FACTORS = (1.0, 0.75, 0.5, 0.25, 0.0, -0.5, -1.0)
HEADS = ("FID", "KID", "CLIP-FID", "A_CLIP")


def fig5a(bench: Bench) -> Study:
    """FID, KID, CLIP-FID and A_CLIP on unrelated captions with more and more of the run's neurons off, and as many random ones."""
    rows = bench.once("fig5a", lambda: _quality(bench))
    with figure(len(HEADS), width=2.6, height=2.3) as (made, axes):
        for k, (axis, head) in enumerate(zip(axes, HEADS, strict=True)):
            for kind, color in (("found", RED), ("random", GREY)):
                points = [
                    (row[1], row[k + 2])
                    for row in rows
                    if row[0] in (kind, "none") and row[k + 2] is not None
                ]
                axis.plot(
                    *zip(*points, strict=True), "o-", color=color, label=kind, markersize=3
                ) if points else None
            values = [row[k + 2] for row in rows if row[k + 2] is not None]
            if values:
                axis.set_ylim(
                    min(0, 1.3 * min(values)), max(1.3 * max(values), 0.001)
                )  # from zero: a flat line shall look flat
            axis.set(xlabel="neurons off", title=head)
        axes[0].legend()
    n = min(IMAGES, len(bench.others))
    note = (
        f"{n} captions that are not memorized ({bench.whence(bench.others[:IMAGES])}), one image each, against {n} images of the untouched model on other seeds (a real data set's images "
        "stand there in the paper, whose FID and KID on COCO stay flat up to 750 neurons). FID is biased upwards for few images: compare within "
        "the table. FID and KID: copy descriptor's features; CLIP-FID: CLIP's."
    )
    table = Table("Quality", ["", "neurons off", *HEADS], rows, note)
    text = "What the neurons cost other captions. Those shared by most captions go off first."
    return Study("Figures 5a and 8: quality", text, [table], {"fig5a": made})


def _quality(bench: Bench) -> list[list[Any]]:
    order = _by_frequency(bench)
    counts = sorted({round(share * len(order)) for share in SHARES} - {0})
    prompts = list(bench.others[:IMAGES])
    if len(prompts) < 2:
        raise InputError(
            "the quality of images needs at least two captions that are not memorized in the run"
        )
    sets = [("none", EMPTY)]
    for count in counts:
        sets += [("found", NeuronSet.of(order[:count])), ("random", _random(bench, order[:count]))]
    asked = [(EMPTY, WANTED), *((neurons, UNTOUCHED) for _, neurons in sets)]
    real, *shown = images_with(bench, "fig5a", prompts, asked)
    return [
        [kind, len(neurons), *_measures(real, made)]
        for (kind, neurons), made in zip(sets, shown, strict=True)
    ]


def _measures(real: Pictures, made: Pictures) -> list[float | None]:
    """FID, KID, CLIP-FID and A_CLIP; None where their judge is missing."""
    values = {name: distance(name, real, made) for name in distances(real.judges)}
    if real.judges.alignment is not None:
        values["a_clip"] = float(made.fits.median())
    return [
        round(values[name], 5) if name in values else None
        for name in ("fid", "kid", "clip_fid", "a_clip")
    ]


def _by_frequency(bench: Bench) -> list[Neuron]:
    """What the run switches off, the neurons of most captions first."""
    return list(holders(c for c in bench.memorized() if len(switched_off(c))))


def _random(bench: Bench, neurons: Sequence[Neuron]) -> NeuronSet:
    """As many neurons of each layer, none of those of the run; where a layer has too few others, all of them."""
    held, widths, layers = set(_by_frequency(bench)), bench.model.widths("all"), {}
    for name, count in Counter(name for name, _ in neurons).items():
        others = [i for i in range(widths[name]) if (name, i) not in held]
        Random(sample_seed(bench.image_settings.seed, name, 0)).shuffle(others)
        layers[name] = others[:count]
    return NeuronSet(layers)


def fig5b(bench: Bench) -> Study:
    """The found neurons scaled by factors from 1 (as they are) over 0 (off) to negative ones."""
    captions = bench.sample()
    cases = [(c, neurons_of(c), factor) for factor in FACTORS for c in captions]
    found = bench.off("fig5b", cases)
    lines, rows = {}, []
    for k, factor in enumerate(FACTORS):
        of_factor = found[k * len(captions) : (k + 1) * len(captions)]
        payloads = [p for p in of_factor if p is not None]
        lines[factor] = medians(payloads)
        rows.append([f"{factor:g}", len(payloads), *lines[factor].values()])
    with figure() as (made, (axis,)):
        for (key, label), color in zip(EFFECTS.items(), (RED, BLUE, GREY), strict=False):
            points = [(f, v[key]) for f, v in lines.items() if v[key] is not None]
            axis.plot(
                *zip(*points, strict=True), "o-", color=color, label=label, markersize=3
            ) if points else None
        axis.set(xlabel="factor", ylabel="similarity, median")
        axis.legend()
    heads = ["factor", "captions", *EFFECTS.values()]
    note = "Published for VM, factors .75, .5, .25, 0: SSCD_orig .79, .62, .20, .09."
    return Study(
        "Figure 5b: scaling factor",
        "Weakened neurons mitigate partly, negative factors add nothing to switching them off.",
        [Table("Scaled neurons", heads, rows, note)],
        {"fig5b": made},
    )
