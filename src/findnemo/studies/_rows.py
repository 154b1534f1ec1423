"""Rows of the paper's tables: what is measured, as median and deviation over prompts, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from findnemo.metrics.robust import median_mad
from findnemo.studies._published import COLUMNS, HEADS, Row
from findnemo.studies._table import Cell, Table, plus_minus

Payloads = Sequence[Mapping[str, Any]]


def comparison(
    title: str, rows: Mapping[str, Mapping[str, Payloads]], published: Mapping[str, Mapping[str, Row]], note: str
) -> Table:
    """One line a row and type: number of prompts, ours, and the paper's in the columns behind. `rows`: name -> type -> payloads."""
    heads = ["", "type", "n", *HEADS, *(f"{head}, paper" for head in HEADS)]
    lines = [
        [name, kind or "-", len(payloads), *_ours(payloads), *_theirs(published.get(name, {}).get(kind))]
        for name, by_type in rows.items()
        for kind, payloads in by_type.items()
        if payloads
    ]
    return Table(title, heads, lines, note)


def _ours(payloads: Payloads) -> list[Cell]:
    counts = [p.get("neurons", 0) for p in payloads]
    return [f"{median(counts):g}", *(_cell(payloads, column) for column in COLUMNS[1:])]


def _cell(payloads: Payloads, column: str) -> str | None:
    values = [p[column] for p in payloads if column in p]
    return plus_minus(median_mad(values)) if values else None


def _theirs(row: Row | None) -> list[Cell]:
    return [None if v is None else f"{v:g}" for v in row] if row else [None] * len(HEADS)
