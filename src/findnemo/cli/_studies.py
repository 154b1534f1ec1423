"""The commands `compare` and `study`: NeMo compared with other mitigations, and the paper's tables
and figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._common import LOOSE, listening, plain, print_json, say, stdout, tell
from findnemo.cli._options import REQUIRED, MovedModel, RunOptions, Showing, with_option_groups
from findnemo.errors import FAILED, InputError
from findnemo.studies import STUDIES
from findnemo.tasks.options import (
    Captions,
    Comparing,
    Detecting,
    Pictures,
    Source,
    Studying,
    Workers,
)

PAPER = ", paper"  # suffix of heads of columns with published numbers
# width of the names of methods, beside intervals and at most
NARROW, WIDE = 11, 22
PUBLISHED = (
    " Lines `paper`: the published figures, of Stable Diffusion v1.4. They give A_CLIP only if it"
    " is of the same CLIP, and no copies left."
)


@with_option_groups(
    captions=("shard",),
    detecting=("confidence", "fdr", "miss", "budget", "like"),
    written=("wait", "report", "fail_on_memorized"),
)
def compare(
    captions: Captions = Captions(),
    comparing: Comparing = Comparing(),
    detecting: Detecting = Detecting(),
    pictures: Pictures = Pictures(),
    source: Source = Source(REQUIRED),
    workers: Workers = Workers(),
    written: RunOptions = RunOptions(Path("findnemo-compare")),
) -> None:
    """Compare NeMo's neurons with other mitigations: Table 1 of the paper for your model.

    It makes the run and the table. `findnemo study table1 RUN` gives the same table from a run that
    is there, of all mitigations, with ten images a caption. On the run of an audit, finished or not,
    it keeps the settings and the calibration of that run. --limit takes the memorized captions of each
    type in turn.

    Example: `findnemo compare demo`

    Example: `findnemo compare demo --out findnemo-demo --mitigations nemo,neurons,random-1 --limit 6`

    Example: `findnemo compare MODEL --prompts captions.csv --holdout laion.csv --mitigations
    neurons,embedding --intervals --out run`
    """
    from findnemo import tasks
    from findnemo.runs import Run, counts
    from findnemo.runs.compare import failed_methods

    out = Path(written.path)
    with listening(written.quiet or written.json) as listener:
        table1 = tasks.compare(
            source, captions, written, comparing, detecting, pictures, workers, listener
        )
    if written.json:
        print_json([dict(zip(table1.columns, row, strict=True)) for row in table1.rows])
    elif not written.quiet:
        show(table1)
        files = (
            f"table in {out / 'table1.md'}, costs in {out / 'costs.md'}, each caption in"
            f" {out / 'captions.csv'}, a sheet for each caption in"
            f" {out / 'compare'}"
        )
        stdout.print(plain(f"{files}, report in {out / 'report.html'}"), soft_wrap=True)
    with Run.open(out) as run:
        broken = failed_methods(run)
        before = counts(run)["failed"]
    for row, reasons in list(broken.items())[:5]:
        say(f"failed: row {row}: {reasons}")
    if broken or before:
        raise typer.Exit(FAILED)


@with_option_groups(source=("compile",))
def study(
    name: Annotated[
        str | None,
        typer.Argument(
            help=f"all, or names separated by commas: {', '.join(STUDIES)}. These work on finished"
            f" images: {', '.join(name for name, of in STUDIES.items() if of.pictured)}."
        ),
    ] = None,
    run: Annotated[Path | None, typer.Argument(help="A run directory.", metavar="RUN")] = None,
    studying: Studying = Studying(),
    source: MovedModel = MovedModel(),
    workers: Workers = Workers(),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write to (default: RUN/studies).")
    ] = None,
    overview: Annotated[
        bool,
        typer.Option(
            "--list",
            help="List every table and figure of the paper with what it needs, and what RUN has of"
            " that.",
        ),
    ] = False,
    showing: Showing = Showing(),
) -> None:
    """Make tables and figures of the paper from a run, as Markdown, CSV, LaTeX, PNG and SVG.

    `findnemo study --list` shows what each of them is and what it needs. `table1` is the table of
    `findnemo compare`, which makes the run too.

    Example: `findnemo study --list findnemo-demo`

    Example: `findnemo study all findnemo-demo`

    Example: `findnemo study table3,fig2a,fig10 run --out figures`
    """
    from findnemo import tasks
    from findnemo.errors import FindnemoError
    from findnemo.runs.wording import count

    if overview or name is None:  # the only argument is a run
        with listening(showing.quiet) as listener:
            show_studies(tasks.studies(run or name, studying, listener), showing.json)
        if name is None and not showing.json:
            stdout.print("Make them from a run: findnemo study NAME[,NAME] RUN, or all RUN")
        return
    if run is None:
        raise InputError(
            f"give the studies and a RUN: findnemo study {name} RUN; findnemo study alone lists"
            " what there is"
        )
    with listening(showing.quiet) as listener:
        done = tasks.study(name, run, out, studying, source, workers, listener)
    failed = {n: s for n, s in done.items() if isinstance(s, FindnemoError)}
    for which, reason in failed.items():
        say(f"failed: {which}: {reason}")
    if not showing.quiet:
        folder = out or run / "studies"
        made = count(len(done) - len(failed), "study")
        text = f"{made} in {folder}: begin with {folder / 'README.md'}"
        stdout.print(plain(text), soft_wrap=True)
    if failed:
        raise typer.Exit(FAILED)


def show_studies(table: Any, json: bool) -> None:
    """Show every study with what it computes and needs; for a run also what it has and lacks."""
    from rich.table import Table

    if json:
        print_json([dict(zip(table.columns, row, strict=True)) for row in table.rows])
        return
    last = table.columns.index("this run" if "this run" in table.columns else "needs")
    kept = [0, 1, 2, 3, last]
    shown = Table(*(table.columns[k] for k in kept), **LOOSE)
    for row in table.rows:
        shown.add_row(*("-" if row[k] is None else plain(str(row[k])) for k in kept))
    stdout.print(shown)
    for line in table.note.split("; "):
        tell(plain(line))


def show(study: Any) -> None:
    """Show a table of a study within 80 columns: intervals are below the figures, the paper's on a
    line of their own.
    """
    from rich.table import Table

    heads = list(study.columns)
    own = [k for k, head in enumerate(heads) if not head.endswith(PAPER)]
    theirs = {k: heads.index(heads[k] + PAPER) for k in own if heads[k] + PAPER in heads}
    table = Table(title=study.title, title_justify="left", **LOOSE)
    name, *figures = own
    has_intervals = any(" ± " in str(c) and " [" in str(c) for row in study.rows for c in row)
    table.add_column(
        heads[name], width=NARROW if has_intervals else None, max_width=WIDE, overflow="fold"
    )
    for k in figures:
        lines = heads[k].replace(" ", "\n")
        table.add_column(lines, justify="left" if k == 1 else "right", overflow="fold")
    for row in study.rows:
        table.add_row(*(_cell(row[k]) for k in own))
        published = [_cell(row[theirs[k]]) if k in theirs else "" for k in figures]
        if any(published):
            table.add_row("paper", *published, style="dim")
    stdout.print(table)
    tell(plain(study.note + PUBLISHED * bool(theirs)))


def _cell(value: Any) -> str:
    """`0.96±0.02`, with the interval, if any, below it."""
    short = "" if value is None else str(value).replace(" ± ", "±")
    return "\n".join(map(plain, short.replace(" [", "\n[").replace(", ", " ").split("\n")))
