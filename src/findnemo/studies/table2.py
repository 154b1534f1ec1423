"""Table 2: seconds per algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from findnemo.calibration import Calibration
from findnemo.localization import localize
from findnemo.runs.store import Caption
from findnemo.runs.wording import count
from findnemo.runs.work import StageAnswer
from findnemo.stats.robust import mean_std
from findnemo.studies._bench import Bench, Desk, Study, by_type
from findnemo.studies.nemo import ENCODER, listing, stopped
from findnemo.studies.published import TABLE2
from findnemo.studies.table import Table, plus_minus

OURS = "findnemo's search, total"


def table2(bench: Bench) -> Study:
    """Seconds of each algorithm of the listing on the captions of the sample, and of the default
    search.
    """
    captions = bench.sample()
    results = bench.each(
        "table2:clocks", captions, partial(_measure, calibration=bench.calibration)
    )
    kinds = by_type(captions, none="-")
    rows = []
    for name in (ENCODER, *TABLE2, OURS):
        ours = [
            _seconds([results[c.id][name] for c in g if name in results.get(c.id, ())])
            for g in kinds.values()
        ]
        published = TABLE2.get(name, {})
        paper = [f"{published[kind]:.2f}" if kind in published else None for kind in kinds]
        rows.append([name, *ours, *paper])
    heads = ["", *(f"{kind}, s" for kind in kinds), *(f"{kind}, s, paper" for kind in kinds)]
    note = (
        f"Mean ± standard deviation over {count(len(captions), 'caption')} on {bench.model.device}; the"
        " paper's on a V100 or A100. Algorithm 2 reads the activations and chooses by the first"
        " thresholds. The total has the text encoder, which runs once; the paper does not tell its"
        " time. The listing here makes one pass where the released code makes two, reads"
        " activations without a U-Net pass (the paper's Algorithm 2 takes one), and tests no set"
        " twice."
    )
    text = "What a localization takes, by algorithm."
    return Study(text, [Table("Seconds", heads, rows, note)])


def _seconds(values: Sequence[float]) -> str | None:
    """Mean and deviation; for a single value only the value, None for none."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return plus_minus(mean_std(values), 3) if values else None


def _measure(desk: Desk, caption: Caption, calibration: Calibration) -> StageAnswer:
    listed = listing(desk.model, caption.text, calibration)["seconds"]
    _, seconds = stopped(lambda: localize(desk.model, caption.text, desk.calibration))
    return StageAnswer(listed | {OURS: seconds})
