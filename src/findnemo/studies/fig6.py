"""Figure 6: how similar the generations of memorized captions are to their training images, and the
type of memory that follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from findnemo.errors import InputError
from findnemo.images import generate
from findnemo.metrics import memory_type
from findnemo.metrics.kind import IMAGES, VERBATIM, is_memory
from findnemo.runs.standing import treated_as_memory
from findnemo.runs.store import Caption, Run
from findnemo.runs.wording import count
from findnemo.runs.work import StageAnswer
from findnemo.seeds import FRESH
from findnemo.studies._bench import Bench, Desk, Job, Study
from findnemo.studies.figure import BLUE, GREY, RED, figure, ink
from findnemo.studies.table import Table

COLORS = {"VM": RED, "TM": BLUE}


def fig6(bench: Bench) -> Study:
    """SSCD of ten generations of every memorized caption to its training image.

    If the best is over .7 the memory is verbatim (VM), else a template (TM). The captions have the
    type of a memory or were found to be memorized, and have a known training image. Types other
    than VM and TM are decided anew. The second table is a table of captions that every command
    reads.
    """
    captions = [c for c in bench.work.run.captions() if is_memory(c.type) or treated_as_memory(c)]
    pictured = [c for c in captions if bench.work.original(c) is not None]
    if not pictured:
        raise InputError(
            "no memorized caption of the run has an available training image: see"
            " originals/failures.jsonl"
        )
    jobs = {c.id: Job("similarities", c, _similarities, pictures=True) for c in pictured}
    found = bench.results("fig6", jobs)
    shown = [CaptionSimilarities(c, found[c.id]["sscd_orig"]) for c in pictured if c.id in found]
    groups: dict[str, list[CaptionSimilarities]] = {}
    for one in shown:
        groups.setdefault(one.caption.type or "no type", []).append(one)
    with figure(2, width=3.6, height=2.6) as (sheet, (left, right)):
        _histogram(left, groups)
        _strip(right, groups)
    rows = [[kind, *_line(group)] for kind, group in groups.items()]
    heads = ["type", "captions", "best of ten, median", "captions over .7", "generations over .7"]
    note = "Types: those of the run's table."
    if missing := len(captions) - len(shown):
        note += (
            f" Left out: {missing} of {count(len(captions), 'memorized caption')}, without a training"
            " image or failed."
        )
    told = [
        [
            one.caption.text,
            one.kind,
            _image(bench.work.run, one.caption),
            one.best,
            one.caption.type,
        ]
        for one in shown
    ]
    tables = [
        Table("Similarity to the training image", heads, rows, note),
        Table("Captions by type", ["caption", "type", "image", "similarity", "type given"], told),
    ]
    verbatim = sum(one.kind == "VM" for one in shown)
    differ = sum(one.caption.type in COLORS and one.caption.type != one.kind for one in shown)
    text = (
        f"SSCD of {IMAGES} generations of {count(len(shown), 'memorized caption')} to their training images."
        f" VM: the best is over {VERBATIM:g}. Here {verbatim} are VM, {len(shown) - verbatim} TM;"
        f" {differ} have another type in the run's table. fig6-2.csv is a table of captions with"
        " these types, for `--prompts`."
    )
    return Study(text, tables, {"fig6": sheet})


@dataclass(frozen=True)
class CaptionSimilarities:
    """A caption with the SSCD of each generation to its training image."""

    caption: Caption
    values: Sequence[float]

    @property
    def best(self) -> float:
        return max(self.values)

    @property
    def kind(self) -> str:
        return memory_type(self.values)


def _line(group: Sequence[CaptionSimilarities]) -> list[Any]:
    values = [v for one in group for v in one.values]
    over = sum(one.kind == "VM" for one in group) / len(group)
    best = median(one.best for one in group)
    return [len(group), best, over, sum(v > VERBATIM for v in values) / len(values)]


def _image(run: Run, caption: Caption) -> str | None:
    """The place of a training image, for a table in another folder."""
    file = Path(run.meta("folder") or "") / str(caption.image)
    return str(file.absolute()) if file.is_file() else caption.image


def _histogram(axis: Any, groups: Mapping[str, Sequence[CaptionSimilarities]]) -> None:
    """Draw the best of ten of every caption, by the type in the run's table."""
    best = {kind: [one.best for one in group] for kind, group in groups.items()}
    low = min(0.0, *(v for values in best.values() for v in values))
    bins = [k / 20 for k in range(math.floor(20 * low), 21)]
    colors = [COLORS.get(kind, GREY) for kind in best]
    axis.hist(list(best.values()), bins, stacked=True, color=colors, label=list(best))
    axis.axvline(VERBATIM, color=ink(), linestyle="--", linewidth=0.8)
    axis.set(xlabel=f"SSCD to the training image, best of {IMAGES}", ylabel="captions")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="upper left")


def _strip(axis: Any, groups: Mapping[str, Sequence[CaptionSimilarities]]) -> None:
    """Draw every generation, a column for each caption, the most similar at the left."""
    begin = 0
    for kind, group in groups.items():
        color = COLORS.get(kind, GREY)
        order = sorted(group, key=lambda one: -one.best)
        for x, one in enumerate(order, begin):
            axis.scatter([x] * len(one.values), one.values, s=6, color=color, alpha=0.4, lw=0)
            axis.scatter(x, one.best, s=10, color=color, lw=0)
        begin += len(group)
    axis.axhline(VERBATIM, color=ink(), linestyle="--", linewidth=0.8)
    axis.set(xlabel="caption", ylabel=f"SSCD of {IMAGES} generations", xticks=[])


def _similarities(desk: Desk, caption: Caption) -> StageAnswer:
    """SSCD of each of ten generations to the training image."""
    images = list(desk.before or ())[:IMAGES]
    if len(images) < IMAGES:
        seeds = range(FRESH, FRESH + IMAGES)
        images = generate(desk.model, caption.text, seeds, desk.plan.image_settings)
    original = desk.original(caption)
    describe = desk.judges.descriptor
    assert original is not None
    assert describe is not None
    found = describe(images) @ describe([original])[0]
    return StageAnswer({"sscd_orig": [round(v, 4) for v in found.tolist()]})
