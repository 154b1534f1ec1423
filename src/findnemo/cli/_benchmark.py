"""The command `benchmark`: localization methods on models with planted memories in known neurons,
and on models that memorized by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findnemo.cli._common import LOOSE, OutOpt, plain, print_json, say, stdout, watched
from findnemo.cli._options import Showing, grouped
from findnemo.runtime.quiet import quiet_libraries
from findnemo.tasks.options import Captions, Workers, option

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


@dataclass(frozen=True)
class Scoring:
    """Which methods are scored, and on which models."""

    natural: bool = option(
        False,
        "Score suite 2: models that memorized by ordinary fine-tuning, whose neurons are unknown.",
    )
    suite: Path | None = option(
        None,
        "Score the trained models in this folder, or the one model that it holds, instead of the"
        " shipped model.",
    )
    train: bool = option(
        False, "First train the missing models of --suite (half an hour each); can be resumed."
    )
    methods: str | None = option(None, "Names of methods, separated by commas; default: all.")
    add: Path | None = option(
        None, "Also score the answers of your own method: JSON, see docs/benchmark.md."
    )
    published: bool = option(False, "Show the results that ship with findnemo; compute nothing.")
    kinds: bool = option(False, "Also show precision and recall by kind of memory.")


@grouped(captions=("prompts", "column", "shard"), workers=("workers", "ray"))
def benchmark(
    out: OutOpt = Path("findnemo-benchmark"),
    scoring: Scoring = Scoring(),
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
    from findnemo.benchmark import suite as api
    from findnemo.benchmark import table
    from findnemo.benchmark.results import Results
    from findnemo.benchmark.results import published as shipped
    from findnemo.errors import InputError

    natural = scoring.natural
    suite = scoring.suite
    silent = showing.quiet or showing.json
    if scoring.train and suite is None:
        raise InputError(
            "--train makes the models of a suite: give its folder, --train --suite FOLDER"
        )
    if natural and (scoring.train or scoring.kinds):
        raise InputError(
            "--train and --kinds are of planted memories: leave --natural out; recipes/natural/"
            " makes natural members"
        )
    version = api.version_of(natural)
    if scoring.published:
        results = shipped(version)
    else:
        chosen = api.chosen(scoring.methods.split(",") if scoring.methods else None)
        answers = api.read_answers(scoring.add)
        quiet_libraries()
        if scoring.train and suite is not None:
            api.train(suite, report=lambda line: say(line, silent))
        file = out / ("natural.json" if natural else "results.json")
        with watched(silent) as watch:
            update = None if watch is None else watch.stage
            own = api.run(
                file, suite, chosen, answers, captions.limit, update, natural, workers.threads
            )
        results = Results.over(own, shipped(version))
    if showing.json:
        print_json(table.to_json(results))
    elif not showing.quiet:
        show(results, scoring.kinds)


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
