"""Figures 5a and 8: image quality against the number of neurons off.

Figure 5b: the factor by which neurons are scaled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Any

from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.runs.overview import holders
from findnemo.runs.standing import neurons_of, switched_off
from findnemo.seeds import sample_seed
from findnemo.studies._bench import Bench, Study
from findnemo.studies._figure import BLUE, GREY, RED, figure, line
from findnemo.studies._images import EFFECTS, images_with, medians
from findnemo.studies._table import Table
from findnemo.verification import Pictures, distance, distances

SHARES = (0.0, 0.25, 0.5, 1.0)
IMAGES = 48
FACTORS = (1.0, 0.75, 0.5, 0.25, 0.0, -0.5, -1.0)
HEADS = ("FID", "KID", "CLIP-FID", "A_CLIP")


def fig5a(bench: Bench) -> Study:
    """FID, KID, CLIP-FID and A_CLIP on unrelated captions with more and more of the run's
    neurons off, and as many random ones.
    """
    rows = bench.once("fig5a", lambda: _quality(bench))
    with figure(len(HEADS), width=2.6, height=2.3) as (sheet, axes):
        for k, (axis, head) in enumerate(zip(axes, HEADS, strict=True)):
            cells = [(kind, n, row[k]) for kind, n, *row in rows if row[k] is not None]
            for kind, color in (("found", RED), ("random", GREY)):
                points = [(n, value) for of, n, value in cells if of in (kind, "none")]
                line(axis, points, color, kind)
            if cells:  # from zero: a flat line shall look flat
                values = [value for *_, value in cells]
                axis.set_ylim(min(0, 1.3 * min(values)), max(1.3 * max(values), 0.001))
            axis.set(xlabel="neurons off", title=head)
        axes[0].legend()
    n = min(IMAGES, len(bench.others))
    note = (
        f"{n} captions that are not memorized ({bench.whence(bench.others[:IMAGES])}), one image"
        f" each, against {n} images of the untouched model on other seeds (a real data set's images"
        " stand there in the paper, whose FID and KID on COCO stay flat up to 750 neurons). FID is"
        " biased upwards for few images: compare within the table. FID and KID: copy descriptor's"
        " features; CLIP-FID: CLIP's."
    )
    table = Table("Quality", ["", "neurons off", *HEADS], rows, note)
    text = "What the neurons cost other captions. Those shared by most captions go off first."
    return Study(text, [table], {"fig5a": sheet})


def _quality(bench: Bench) -> list[list[Any]]:
    order = _by_frequency(bench)
    counts = sorted({round(share * len(order)) for share in SHARES} - {0})
    prompts = list(bench.others[:IMAGES])
    sets = [("none", EMPTY)]
    for count in counts:
        sets += [("found", NeuronSet.of(order[:count])), ("random", _random(bench, order[:count]))]
    real, images = images_with(bench, "fig5a", prompts, [neurons for _, neurons in sets])
    return [
        [kind, len(neurons), *_measures(real, blocked)]
        for (kind, neurons), blocked in zip(sets, images, strict=True)
    ]


def _measures(real: Pictures, blocked: Pictures) -> list[float | None]:
    """FID, KID, CLIP-FID and A_CLIP; None where their judge is missing."""
    values: dict[str, float | None] = dict.fromkeys(("fid", "kid", "clip_fid", "a_clip"))
    values |= {name: round(distance(name, real, blocked), 5) for name in distances(real.judges)}
    if real.judges.alignment is not None:
        values["a_clip"] = round(float(blocked.fits.median()), 5)
    return list(values.values())


def _by_frequency(bench: Bench) -> list[Neuron]:
    """What the run switches off, the neurons of most captions first."""
    return list(holders(c for c in bench.memorized() if len(switched_off(c))))


def _random(bench: Bench, neurons: Sequence[Neuron]) -> NeuronSet:
    """As many neurons of each layer, none of those of the run; where a layer has too
    few others, all of them.
    """
    held = set(_by_frequency(bench))
    widths = bench.model.widths("all")
    layers = {}
    for name, count in Counter(name for name, _ in neurons).items():
        others = [i for i in range(widths[name]) if (name, i) not in held]
        Random(sample_seed(bench.image_settings.seed, name, 0)).shuffle(others)
        layers[name] = others[:count]
    return NeuronSet(layers)


def fig5b(bench: Bench) -> Study:
    """The found neurons scaled by factors from 1 (as they are) over 0 (off) to negative ones."""
    captions = bench.sample()
    cases = [(c, neurons_of(c), factor) for factor in FACTORS for c in captions]
    found = iter(bench.off("fig5b", cases))
    lines = {}
    rows = []
    for factor in FACTORS:
        payloads = [p for p in islice(found, len(captions)) if p is not None]
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
        "Weakened neurons mitigate partly, negative factors add nothing to switching them off.",
        [Table("Scaled neurons", heads, rows, note)],
        {"fig5b": sheet},
    )
