"""The command `benchmark`: localization methods on models with planted memories in known neurons,
and on models that memorized by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._common import LOOSE, OutOpt, plain, print_json, progress_watch, stdout
from findnemo.cli._options import Showing, with_option_groups
from findnemo.errors import InputError
from findnemo.runtime.quiet import quiet_libraries
from findnemo.tasks.options import Captions, Scoring, Workers

SHOWN = {  # figure -> its head in the table, and whether to show its interval
    "precision": ("precision", True),
    "recall": ("recall", True),
    "gone": ("gone", True),
    "copied": ("copied", False),
    "unrelated kept": ("others kept", False),
    "false alarms": ("false alarms", False),
    "evaluations": ("U-Net samples", False),
}
SHOWN_NATURAL = {
    "gone": ("gone", True),
    "largest copy": ("largest copy", False),
    "kept": ("others kept", True),
    "alignment": ("alignment", False),
    "neurons": ("neurons", False),
    "evaluations": ("U-Net samples", False),
    "false alarms": ("false alarms", False),
}
NATURAL = "See docs/benchmark.md"
PLANTED = "Planted memories are not natural ones; see docs/benchmark.md"


@with_option_groups(captions=("prompts", "column", "shard"), workers=("workers", "ray"))
def benchmark(
    out: OutOpt = Path("findnemo-benchmark"),
    scoring: Scoring = Scoring(),
    kinds: Annotated[
        bool, typer.Option("--kinds", help="Also show precision and recall by kind of memory.")
    ] = False,
    captions: Captions = Captions(),
    workers: Workers = Workers(),
    showing: Showing = Showing(),
) -> None:
    """Score localization methods on models with planted memories, or on models that
    memorized by ordinary training.

    It scores the shipped model of the suite (about ten minutes on one idle core, less with
    `--limit 4`) and shows it next to the published results of other models. It keeps results in
    OUT/results.json (OUT/natural.json with --natural). The same command continues an interrupted
    benchmark, and shows a finished one at once.

    Example: `findnemo benchmark --published`

    Example: `findnemo benchmark --limit 4 --methods findnemo,NeMo,z-score`

    Example: `findnemo benchmark --natural --limit 2 --out natural-benchmark`

    Example: `findnemo benchmark --train --suite suite --out suite`

    Example: `findnemo benchmark --natural --suite build/natural/dreambooth --out natural-benchmark`

    Example: `findnemo benchmark --suite suite --add my-answers.json --kinds`
    """
    from findnemo import tasks
    from findnemo.benchmark import table
    from findnemo.tasks.benchmarking import PLANTED_ONLY

    if scoring.natural and kinds:
        raise InputError(PLANTED_ONLY)
    if not scoring.published:  # it imports libraries that published results do not need
        quiet_libraries()
    with progress_watch(showing.quiet or showing.json) as watch:
        listener = tasks.Listener() if watch is None else tasks.Listener(watch.stage, watch.said)
        results = tasks.benchmark(out, scoring, captions.limit, workers, listener)
    if showing.json:
        print_json(table.to_json(results))
    elif not showing.quiet:
        show(results, kinds)


def show(results: Any, kinds: bool) -> None:
    """Show two tables of methods: for held-out members, and for those they were tuned on."""
    from findnemo.benchmark import NATURAL_VERSION, table

    natural = results.suite == NATURAL_VERSION
    shown, note = (SHOWN_NATURAL, NATURAL) if natural else (SHOWN, PLANTED)
    for part, own in table.apart(results).items():
        _show(own, shown, f"{part.capitalize()}. {note}")
        if kinds:
            stdout.print(table.kinds_markdown(own), markup=False, soft_wrap=True)


def _show(results: Any, shown: Mapping[str, tuple[str, bool]], note: str) -> None:
    """Show one table, narrow enough for a terminal: intervals are below the means."""
    from rich.table import Column, Table

    from findnemo.benchmark import table

    heads = (Column(head, justify="right", max_width=9) for head, _ in shown.values())
    grid = Table(Column("method", max_width=14), *heads, **LOOSE)
    for method, figures in table.rows(results).items():
        cells = (
            _cell(figures[name], table.DIGITS.get(name, 2), with_interval)
            for name, (_, with_interval) in shown.items()
        )
        grid.add_row(plain(method), *cells)
    stdout.print(grid)
    stdout.print(
        f"Memories scored: {plain(table.members(results))}. In grey: 95 % intervals. {note}",
        soft_wrap=True,
    )


def _cell(figure: Any, digits: int, interval: bool) -> str:
    """`0.97`, with the interval below it in grey."""
    if figure.value is None:
        return "-"
    ends = f"\n[dim]{figure.low:.{digits}f}-{figure.high:.{digits}f}[/]" if interval else ""
    return f"{figure.value:.{digits}f}{ends}"
