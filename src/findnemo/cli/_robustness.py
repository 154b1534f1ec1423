"""Results of attempts and attacks on an edited model, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Column, Table

from findnemo.cli._common import EDGELESS, LOOSE, plain, stdout, tell

NARROW: dict[str, Any] = {"box": SIMPLE, "collapse_padding": True, **EDGELESS}
COUNTED = "2/5: a copy of 2 captions, of 5 for which the attempt works on the untouched model"
ROOM = 3  # columns of attempts that 80 characters hold together with their intervals


def show_robustness(attempts: Mapping[str, Any] | None, attack: Mapping[str, Any] | None) -> None:
    """Show the table of attempts, the curves of the attack with gaps between the wanted pictures and
    controls, and sentences on them.
    """
    from findnemo.report.sentences import sentences

    if attempts and attempts["table"]:
        stdout.print(attempts_table(attempts))
        has_intervals = len(attempts["columns"]) <= ROOM
        told = (
            f"{COUNTED}; beside it the 95 % interval of that share." if has_intervals else COUNTED
        )
        tell(f"[dim]{told}[/]")
    if attack and any(attack["curves"].values()):
        stdout.print(attack_table(attack))
    for line in sentences(attempts, attack):
        tell(plain(line))


def attempts_table(attempts: Mapping[str, Any]) -> Table:
    """Captions of which an attempt gave a copy, a column for each model and kind of caption, with
    Wilson intervals (95 %) if they fit.

    For an edited model, only captions count for which the attempt works on the untouched one.
    """
    columns = attempts["columns"]
    heads = ("captions copied by", *map(plain, columns))
    table = Table(*(Column(head, overflow="fold") for head in heads), **LOOSE)
    for name, found in attempts["table"].items():
        table.add_row(
            plain(name), *(_copies(found.get(column), len(columns) <= ROOM) for column in columns)
        )
    return table


def _copies(cell: Mapping[str, Any] | None, with_interval: bool) -> str:
    """
    >>> _copies({"captions": 1, "n": 5, "low": 0.04, "high": 0.62}, False)
    '1/5'
    """
    from findnemo.runs.evidence import counted

    if cell is None:
        return "-"
    told = counted(cell)
    if told is None:
        return "[dim]tells nothing[/]"
    interval = f" [dim]{told['low']:.2f}-{told['high']:.2f}[/]" if with_interval else ""
    return f"{told['back']:.0f}/{told['works']:.0f}{interval}"


def attack_table(attack: Mapping[str, Any]) -> Table:
    """Mean similarity to the wanted picture by steps, a line for each curve; then the gaps, with
    their intervals below them.
    """
    from findnemo.runs.evidence import labelled

    attack = labelled(attack)
    gaps = attack.get("gaps") or {}
    steps = sorted(
        {point[0] for line in [*attack["curves"].values(), *gaps.values()] for point in line}
    )
    table = Table("similarity after steps", *(f"{x:g}" for x in steps), **NARROW)
    for name, line in attack["curves"].items():
        cells = {x: f"{y:.2f}" for x, y in line}
        table.add_row(plain(name), *(cells.get(x, "-") for x in steps))
    for name, points in gaps.items():
        cells = {x: _gap(value, low, high) for x, value, low, high in points}
        table.add_row(plain(f"gap, {name}"), *(cells.get(x, "-") for x in steps))
    return table


def _gap(value: float, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f"\n[dim]{low:+.2f}\n{high:+.2f}[/]"
    return f"{value:+.2f}{ends}"
