"""Rows of the paper's tables: median and deviation over prompts, next to the published values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from statistics import mean, median
from typing import Any

import torch

from findnemo import demo
from findnemo.runs.store import Run
from findnemo.stats.intervals import bootstrap
from findnemo.stats.robust import median_mad
from findnemo.studies._published import CLIP, COLUMNS, HEADS, Row
from findnemo.studies._table import Cell, Table, plus_minus

Payloads = Sequence[Mapping[str, Any]]

FIGURES = "Figures are medians over captions ± the median absolute deviation."
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
    kept = [
        k
        for k, column in enumerate(COLUMNS)
        if not (k and every) or any(column in p for p in every)
    ]
    theirs_of = {HEADS[k]: f"{HEADS[k]}, paper" for k in kept}
    if "A_CLIP" in theirs_of and not is_papers:
        theirs_of["A_CLIP"] = "A_CLIP with ViT-B/32, paper"
    copies = [COPIES] if any("copies" in p for p in every) else []
    heads = ["", "type", "n", *theirs_of, *copies, *theirs_of.values()]
    lines = []
    for name, by_type in rows.items():
        for kind, payloads in by_type.items():
            if payloads:
                ours = [_cell(payloads, COLUMNS[k], intervals) for k in kept[1:]]
                count = f"{median(p.get('neurons', 0) for p in payloads):g}"
                of_paper = _theirs(published.get(name, {}).get(kind))
                theirs = [of_paper[k] for k in kept]
                left = [_copies_left(payloads) for _ in copies]
                lines.append([name, kind or "-", len(payloads), count, *ours, *left, *theirs])
    left_out = _left_out({HEADS[k] for k in range(len(HEADS)) if k not in kept} if every else set())
    about = _figures(bool(copies)) + note + _a_clip_note(clip, is_papers, rows)
    return Table(title, heads, lines, about + left_out)


def _figures(copies: bool) -> str:
    """What the figures of a comparison are, with or without that of `copies`."""
    told = (
        f" {COPIES.capitalize()}: the share of images that copy an untouched image of another seed,"
        " mean over captions."
    )
    return f"{FIGURES}{told if copies else ''} "


def _copies_left(payloads: Payloads) -> str | None:
    values = [p["copies"] for p in payloads if "copies" in p]
    return f"{mean(values):.2f}" if values else None


def _left_out(missing: Collection[str]) -> str:
    """Which columns are missing, and how to fill them; empty if none is.

    >>> _left_out({"SSCD_orig"})
    ' Left out: SSCD_orig (no training images: the column `image` of the captions names them).'
    """
    judge = "no descriptor: `findnemo audit --descriptor sscd.pt` gives the run one"
    reasons = {
        judge: [head for head in ("SSCD_orig", "SSCD_gen", "D_SSCD") if head in missing],
        "no CLIP: `findnemo audit --clip NAME` gives the run one": [
            head for head in ("A_CLIP",) if head in missing
        ],
    }
    if "SSCD_gen" not in missing:
        reasons["no training images: the column `image` of the captions names them"] = reasons.pop(
            judge
        )
    named = [f"{', '.join(heads)} ({why})" for why, heads in reasons.items() if heads]
    return f" Left out: {'; '.join(named)}." if named else ""


def judge_of(run: Run, judges: Mapping[str, str], kind: str = "CLIP") -> str:
    """The CLIP or the descriptor of a run, or of a plan with other `judges`, in words."""
    own = run.meta("source") in demo.MODELS
    unnamed = f"the demo's own {kind}" if own else f"a {kind} that the run does not name"
    return str(judges.get(kind.lower(), unnamed))


def _a_clip_note(
    clip: str | None, is_papers: bool, rows: Mapping[str, Mapping[str, Payloads]]
) -> str:
    """Which CLIP gave the A_CLIP of these rows, and whether it can be compared with the published
    numbers; empty without A_CLIP.
    """
    groups = [payloads for by_type in rows.values() for payloads in by_type.values()]
    if clip is None or not any("a_clip" in payload for payload in chain.from_iterable(groups)):
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


def _theirs(row: Row | None) -> list[Cell]:
    if row is None:
        return [None] * len(HEADS)
    neurons, *values = row
    return [
        None if neurons is None else f"{neurons:g}",
        *(None if v is None else f"{v:.2f}" if v == round(v, 2) else f"{v:g}" for v in values),
    ]
