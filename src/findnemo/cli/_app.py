"""The commands. Each is a thin layer over the API: it reads arguments, calls, and shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from findnemo._version import __version__
from findnemo.cli._audit import audit, calibrate, detect, localize, show_result
from findnemo.cli._benchmark import benchmark
from findnemo.cli._checking import harden, verify
from findnemo.cli._common import PLAIN, Global, OutOpt, listening, print_json, stdout
from findnemo.cli._export import export
from findnemo.cli._help import Command, group_of
from findnemo.cli._options import StatusOptions, with_option_groups
from findnemo.cli._runs import inspect, merge, repair, report
from findnemo.cli._serve import app as serve
from findnemo.cli._studies import compare, study
from findnemo.cli._watch import watch
from findnemo.errors import FAILED, InputError
from findnemo.tasks.options import Captions, Workers

app = typer.Typer(
    name="findnemo",
    help="Find the neurons with which a text-to-image diffusion model memorizes training"
    " images, and switch them off.",
    epilog=(
        "Start with: `findnemo demo`. Completion for your shell: `findnemo --install-completion`."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        stdout.print(f"findnemo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show the traceback of an error. Put this option before the command."
        ),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if isinstance(context.obj, Global):
        context.obj.debug = debug


@with_option_groups(
    captions=("prompts", "column", "shard"),
    workers=("workers", "ray"),
    showing=("fail_on_memorized",),
)
def demo(
    out: OutOpt = Path("findnemo-demo"),
    check: Annotated[
        bool, typer.Option("--check", help="Compare the demo model with its ground truth instead.")
    ] = False,
    natural: Annotated[
        bool,
        typer.Option(
            "--natural",
            help="Audit the model that memorized by ordinary fine-tuning: none of its memories was"
            " planted.",
        ),
    ] = False,
    captions: Captions = Captions(),
    workers: Workers = Workers(),
    showing: StatusOptions = StatusOptions(),
) -> None:
    """Audit the model that ships with findnemo, offline, with its own calibration (5 % false alarms).

    The result is compared with the known memories of the model, caption by caption.

    With --check: measure the figures of the model card.

    Example: `findnemo demo --natural --out natural`

    Example: `findnemo demo`

    Example: `findnemo demo --limit 4 --out quick`

    Example: `findnemo demo --check`
    """
    from findnemo import tasks

    if not check:
        place = "demo-natural" if natural else "demo"
        with listening(showing.quiet) as listener:
            run = tasks.audit_demo(place, captions, out, workers, listener)
        show_result(run, showing)
        return
    if natural:
        raise InputError(
            "--check compares with planted neurons, and 'demo-natural' has none: leave one of the"
            " two out"
        )
    from findnemo.benchmark.demo_check import figures_table

    with listening(showing.quiet) as listener:
        figures = tasks.check_demo(captions.limit, workers, listener)
    if showing.json:
        print_json([f.to_json() for f in figures])
    else:
        stdout.print(figures_table(figures))
    if not all(f.reached for f in figures):
        raise typer.Exit(FAILED)


if PLAIN:
    from typer import rich_utils

    rich_utils.COLOR_SYSTEM = None
COMMANDS = (
    *(demo, audit, watch, calibrate, detect, localize, verify, inspect, report, serve),
    *(export, harden, compare, study, benchmark, merge, repair),
)
for command in COMMANDS:
    app.command(cls=Command, rich_help_panel=group_of(command.__name__))(command)
