"""Rows of the paper's tables: median and deviation over prompts, next to the published values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import mean, median
from typing import Any

import torch

from findnemo import demo
from findnemo.runs.store import Run
from findnemo.stats.intervals import bootstrap
from findnemo.stats.robust import median_mad
from findnemo.studies.published import CLIP, EFFECTS, Row
from findnemo.studies.table import Cell, Table, plus_minus

Payloads = Sequence[Mapping[str, Any]]

FIGURES = "Figures are medians over captions ± the median absolute deviation."
NEURONS = "median neurons"
COPIES = "copies left"  # a column of ours alone


def comparison(
    title: str,
    rows: Mapping[str, Mapping[str, Payloads]],
    published: Mapping[str, Mapping[str, Row]],
    note: str,
    intervals: bool = False,
    clip: str | None = None,
) -> Table:
    """A table with a line for each row and type: number of prompts, our values, then the paper's.

    `rows`: name -> type -> payloads. `intervals`: with the 95 % bootstrap interval of every median.
    `clip`: the CLIP behind the A_CLIP of these rows; if it differs from the paper's, the paper's
    column names its own.

    Columns without a measured value are left out, and the note says why. Copies left are the mean
    over captions.
    """
    is_papers = clip is None or clip.rstrip("/").endswith(CLIP.partition("/")[2])
    every = [p for by_type in rows.values() for payloads in by_type.values() for p in payloads]
    kept = [column for column in EFFECTS if not every or any(column in p for p in every)]
    theirs_of = {head: f"{head}, paper" for head in (NEURONS, *(EFFECTS[c] for c in kept))}
    if "a_clip" in kept and not is_papers:
        theirs_of["A_CLIP"] = "A_CLIP with ViT-B/32, paper"
    copies = [COPIES] if any("copies" in p for p in every) else []
    heads = ["", "type", "n", *theirs_of, *copies, *theirs_of.values()]
    lines = []
    for name, by_type in rows.items():
        for kind, payloads in by_type.items():
            if payloads:
                ours = [_cell(payloads, column, intervals) for column in kept]
                count = f"{median(p.get('neurons', 0) for p in payloads):g}"
                theirs = _theirs(published.get(name, {}).get(kind), kept)
                left = [_copies_left(payloads) for _ in copies]
                lines.append([name, kind or "-", len(payloads), count, *ours, *left, *theirs])
    of_copies = (
        f" {COPIES.capitalize()}: the share of images that copy an untouched image of another seed,"
        " mean over captions."
    )
    parts = [
        f"{FIGURES}{of_copies if copies else ''} ",
        note,
        _a_clip_note(clip, is_papers, every),
        _left_out([head for column, head in EFFECTS.items() if column not in kept]),
    ]
    return Table(title, heads, lines, "".join(parts))


def medians(payloads: Payloads) -> dict[str, float | None]:
    """The median over captions of every figure of EFFECTS; None if no caption has it."""
    values = {key: [p[key] for p in payloads if key in p] for key in EFFECTS}
    return {key: median(v) if v else None for key, v in values.items()}


def _copies_left(payloads: Payloads) -> str | None:
    values = [p["copies"] for p in payloads if "copies" in p]
    return f"{mean(values):.2f}" if values else None


def _left_out(missing: Collection[str]) -> str:
    """Which columns are missing, and how to fill them; empty if none is.

    >>> _left_out(["SSCD_orig"])
    ' Left out: SSCD_orig (no training images: the column `image` of the captions names them).'
    """
    likeness = [head for head in missing if head != "A_CLIP"]
    fit = [head for head in missing if head == "A_CLIP"]
    judge = (likeness, "no descriptor: `findnemo audit --descriptor sscd.pt` gives the run one")
    pictures = (likeness, "no training images: the column `image` of the captions names them")
    clip = (fit, "no CLIP: `findnemo audit --clip NAME` gives the run one")
    reasons = [judge, clip] if "SSCD_gen" in missing else [clip, pictures]
    named = [f"{', '.join(heads)} ({why})" for heads, why in reasons if heads]
    return f" Left out: {'; '.join(named)}." if named else ""


def judge_of(run: Run, judges: Mapping[str, str], kind: str = "CLIP") -> str:
    """The CLIP or the descriptor of a run, or of a plan with other `judges`, in words."""
    own = run.meta("source") in demo.MODELS
    unnamed = f"the demo's own {kind}" if own else f"a {kind} that the run does not name"
    return str(judges.get(kind.lower(), unnamed))


def _a_clip_note(clip: str | None, is_papers: bool, every: Payloads) -> str:
    """Which CLIP gave the A_CLIP of these rows, and whether it can be compared with the published
    numbers; empty without A_CLIP.
    """
    if clip is None or not any("a_clip" in payload for payload in every):
        return ""
    if is_papers:
        return f" A_CLIP is with {clip}, as in the paper."
    return (
        f" A_CLIP is with {clip}, the paper's with {CLIP}: numbers of different CLIPs are not"
        " comparable."
    )


def _cell(payloads: Payloads, column: str, intervals: bool) -> str | None:
    values = [p[column] for p in payloads if column in p]
    if not values:
        return None
    cell = plus_minus(median_mad(values))
    if not intervals:
        return cell
    sample = torch.tensor(values, dtype=torch.float64)
    low, high = bootstrap(lambda x: float(x.quantile(0.5)), sample)
    return f"{cell} [{low:.2f}, {high:.2f}]"


def _theirs(row: Row | None, kept: Collection[str]) -> list[Cell]:
    """The published number of neurons and figures of the columns that are `kept`."""
    neurons, *figures = row or [None] * (1 + len(EFFECTS))
    values = [v for column, v in zip(EFFECTS, figures, strict=True) if column in kept]
    return [
        None if neurons is None else f"{neurons:g}",
        *(None if v is None else f"{v:.2f}" if v == round(v, 2) else f"{v:g}" for v in values),
    ]
