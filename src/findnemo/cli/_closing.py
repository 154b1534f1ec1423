"""How a command ends that has a run to tell of: what to do, what that rests on, where the pictures
are and the next command, on one screen of 80 columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from findnemo.cli._common import LOOSE, plain, shown, stdout, tell

if TYPE_CHECKING:
    from findnemo.runs import Caption, Run

PLACES = {  # what a run directory may hold -> what is there
    "report.html": "report",
    "sheets": "pictures",
    "training.png": "pictures",
    "results.csv": "results",
}


def show_closing(run: Run, captions: Sequence[Caption], of: str) -> None:
    """The end of a command.

    `captions`: at least those of the run, among those `of` it (SQL for their ids), that are over
    the threshold.
    """
    from findnemo.runs.overview import glance
    from findnemo.runs.verdict import audited

    stdout.print()
    for line in evidence(run, captions, of):
        tell(line)
    stdout.print()
    stdout.print(figures_table(glance(captions, run.meta("quality"), audited(run, of))))
    stdout.print()
    for what, where in places(run.path):
        stdout.print(f"{what:<9} {plain(str(where))}", soft_wrap=True)


def evidence(run: Run, captions: Sequence[Caption], of: str) -> list[str]:
    """What to do, the verdict on the captions `of` a run, and how that is known."""
    from findnemo.runs.truth import truth_of
    from findnemo.runs.union import told
    from findnemo.runs.verdict import verdict_of

    truth = truth_of(run, run.captions())
    lines = [verdict_of(run, captions, of).text, told(captions), *(truth.told[:1] if truth else [])]
    return [plain(line) for line in lines if line]


def figures_table(pairs: Sequence[tuple[str, str]]) -> Table:
    table = Table(show_header=False, **LOOSE)
    for name, value in pairs:
        table.add_row(name, shown(value))
    return table


def places(run: Path) -> list[tuple[str, Path]]:
    """What there is to look at in a run directory: its name, and where it is."""
    return [(what, run / name) for name, what in PLACES.items() if (run / name).exists()]
