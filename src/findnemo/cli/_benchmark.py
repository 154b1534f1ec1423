"""The command `benchmark`: localization methods on models whose memories sit in known neurons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo._quiet import quiet_libraries
from findnemo.cli._common import JsonOpt, LimitOpt, OutOpt, QuietOpt, bar, plain, print_json, say, stdout

SHOWN = {  # figure -> its head here, and whether its interval is shown
    "precision": ("precision", True),
    "recall": ("recall", True),
    "gone": ("gone", True),
    "copied": ("copied", False),
    "unrelated kept": ("others kept", False),
    "false alarms": ("false alarms", False),
    "evaluations": ("U-Net samples", False),
}


def benchmark(
    out: OutOpt = Path("findnemo-benchmark"),
    suite: Annotated[Path | None, typer.Option(help="Score the trained models of this folder instead of the demo model.")] = None,
    train: Annotated[
        bool, typer.Option("--train", help="First make the models of --suite that are not there (half an hour each); resumable.")
    ] = False,
    methods: Annotated[str | None, typer.Option(help="Names, separated by commas; default: all.")] = None,
    add: Annotated[
        Path | None, typer.Option(help="Score the answers of a method of your own too: JSON, see docs/benchmark.md.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show the results that come with findnemo; compute nothing.")
    ] = False,
    kinds: Annotated[bool, typer.Option("--kinds", help="Precision and recall by kind of memory too.")] = False,
    limit: LimitOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Score localization methods where the neurons are known: models with planted memories.

    Scores the shipped demo model (about five minutes on one idle core, one with `--limit 4`) and shows it beside the published results of the
    trained models. Results are kept in OUT/results.json: the same command again goes on, or shows them at once.

    Example: `findnemo benchmark --published`

    Example: `findnemo benchmark --limit 4 --methods findnemo,NeMo,z-score`

    Example: `findnemo benchmark --train --suite suite --out suite`

    Example: `findnemo benchmark --suite suite --add my-answers.json --kinds`
    """
    from findnemo.benchmark import suite as api
    from findnemo.benchmark import table
    from findnemo.benchmark.results import Results
    from findnemo.benchmark.results import published as known
    from findnemo.errors import InputError

    if train and suite is None:
        raise InputError("--train makes the models of a suite: give its folder, --train --suite FOLDER")
    if published:
        results = known()
    else:
        chosen, given = api.chosen(methods.split(",") if methods else None), api.read_answers(add)
        quiet_libraries()
        if train and suite is not None:
            api.train(suite, report=lambda line: say(line, quiet or json))
        with bar(quiet or json) as update:
            own = api.run(out / "results.json", suite, chosen, given, limit, update)
        results = Results.over(own, known())
    if json:
        print_json(table.to_json(results))
    elif not quiet:
        show(results, kinds)


def show(results: Any, kinds: bool) -> None:
    """The table of methods, narrow enough for a terminal: intervals stand under the means."""
    from rich.table import Table

    from findnemo.benchmark import table

    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    made.add_column("method", no_wrap=True)
    for head, _ in SHOWN.values():
        made.add_column(head, justify="right", max_width=9)
    for method, figures in table.rows(results).items():
        made.add_row(plain(method), *(_cell(figures[h], table.DIGITS.get(h, 2), whole) for h, (_, whole) in SHOWN.items()))
    stdout.print(made)
    stdout.print(
        f"Memories scored: {plain(table.members(results))}. In grey: 95 % intervals. Planted memories are not natural ones; see docs/benchmark.md",
        soft_wrap=True,
    )
    if kinds:
        stdout.print(table.kinds_markdown(results), markup=False, soft_wrap=True)


def _cell(figure: Any, digits: int, interval: bool) -> str:
    """`0.97`, under it the interval in grey."""
    if figure.value is None:
        return "-"
    return f"{figure.value:.{digits}f}" + (f"\n[dim]{figure.low:.{digits}f}-{figure.high:.{digits}f}[/]" if interval else "")
