"""The closing screen of a command with a run: what to do, why, where the pictures are, and the next
command, within 80 columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from findnemo.cli._common import LOOSE, plain, stdout, tell
from findnemo.cli._streams import displayable

if TYPE_CHECKING:
    from findnemo.runs import Caption, Run

COLOURS = {"release": "green", "release edited": "green", "hold": "red", "go on": "yellow"}


def show_closing(run: Run, captions: Sequence[Caption], of: str) -> None:
    """Show the closing screen.

    `captions`: at least those over the threshold. `of`: SQL for the ids of the captions that count.
    """
    from findnemo.runs.overview import glance_at
    from findnemo.runs.verdict import advice_of, audited_counts

    advice = advice_of(run, captions, of, str(run.path))
    audited, _ = audited_counts(run, of)
    tell(f"\n[bold {COLOURS[advice.action]}]{plain(advice.sentence)}[/]")
    for line in (*advice.because.splitlines(), *evidence(run, captions)):
        tell(plain(line))
    stdout.print()
    stdout.print(figures_table(glance_at(run, captions, audited)))
    following = [("next", command) for command in advice.next_commands]
    show_places([*places(run.path, captions), *following])


def show_places(named: Sequence[tuple[str, str]]) -> None:
    """Show names with paths or commands below an empty line, unfolded, to be copied."""
    stdout.print()
    for what, line in named:
        stdout.print(f"{what:<9} {plain(line)}", soft_wrap=True)


def evidence(run: Run, captions: Sequence[Caption]) -> list[str]:
    """How the verdict is known: which neurons were off together, and facts about the model."""
    from findnemo.runs.truth import truth_of
    from findnemo.runs.union import sentence_on_union

    truth = truth_of(run, run.captions())
    return [
        line
        for line in (sentence_on_union(captions), *(truth.sentences[:1] if truth else ()))
        if line
    ]


def figures_table(pairs: Sequence[tuple[str, str]]) -> Table:
    table = Table(show_header=False, **LOOSE)
    for name, value in pairs:
        table.add_row(name, displayable(value))
    return table


def places(run: Path, captions: Sequence[Caption]) -> list[tuple[str, str]]:
    """Names and paths of what a run directory has to look at; only sheets of the verification that
    captions are judged by.
    """
    from findnemo.runs.standing import folder_of
    from findnemo.runs.store import GRID, MODELS

    folder = next((folder_of(c) for c in captions if c.together is not None), ".")
    where = {
        run / "report.html": "report",
        run / folder / "sheets": "pictures",
        run / GRID: "copied",
        run / MODELS: "models",
        run / "results.csv": "results",
    }
    return [(what, str(path)) for path, what in where.items() if path.exists()]
