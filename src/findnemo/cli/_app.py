"""The commands. Each is a thin face of the API: it reads arguments, calls, and shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from findnemo._version import __version__
from findnemo.cli._audit import audit, calibrate, detect, localize, show_result
from findnemo.cli._benchmark import benchmark
from findnemo.cli._common import (
    Global,
    JsonOpt,
    LimitOpt,
    OutOpt,
    QuietOpt,
    RunArg,
    listening,
    print_json,
    say,
    stdout,
    warn,
)
from findnemo.cli._export import export
from findnemo.cli._harden import harden
from findnemo.cli._merge import merge
from findnemo.cli._repair import repair
from findnemo.cli._report import report
from findnemo.cli._serve import app as serve
from findnemo.cli._studies import compare, study
from findnemo.cli._verify import verify
from findnemo.errors import FAILED, InputError

app = typer.Typer(
    name="findnemo",
    help="Find the neurons with which a text-to-image diffusion model memorizes training images, and switch them off.",
    epilog="Start with: `findnemo demo`. Completion for your shell: `findnemo --install-completion`.",
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
        typer.Option("--debug", help="Show the traceback of an error; stands before the command."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if isinstance(context.obj, Global):
        context.obj.debug = debug


def inspect(
    run: RunArg,
    caption: Annotated[str | None, typer.Argument(help="Row number, or part of a caption.")] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="Which captions are listed at this false discovery rate (default: the run's, if it has one)."
        ),
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Show what a run found: verdict, figures, scores and neurons of the whole, or everything about one caption.

    Example: `findnemo inspect findnemo-demo`

    Example: `findnemo inspect findnemo-demo "Brantwood"`

    Example: `findnemo inspect run 12 --json`

    Example: `findnemo inspect run --fdr 0.1`
    """
    from findnemo.calibration import Calibration
    from findnemo.cli._detectors import inspect_detectors
    from findnemo.cli._overview import show_caption, show_overview
    from findnemo.runs import Run, captions_of, list_of, p_values, q_values, row, summary
    from findnemo.runs.overview import layers_shown

    if fdr is not None and not 0 < fdr < 1:
        raise InputError(f"--fdr {fdr} is not a rate between 0 and 1")
    with Run.open(run) as opened:
        if caption is None and not (run / "calibration").is_dir():
            inspect_detectors(opened, json)
            return
        captions, listed = captions_of(opened), list_of(opened, fdr)
        if fdr is not None and listed is None:
            say(
                "no list: the calibration has no hold-out scores (imported statistics), so that no caption has a p-value"
            )
        q = q_values(p_values(opened))
        mean = Calibration.load(run / "calibration").mean
        layers = list(layers_shown(opened, captions, {name: len(of) for name, of in mean.items()}))
        if caption is None:
            print_json(summary(opened, fdr)) if json else show_overview(
                opened, layers, captions, listed, q
            )
            return
        chosen = [c for c in captions if str(c.row) == caption] or [
            c for c in captions if caption.lower() in c.text.lower()
        ]
        if not chosen:
            raise InputError(
                f"no caption {caption!r} in {run}: give a row number or a part of a caption"
            )
        if json:
            print_json([row(c, q) for c in chosen])
            return
        for one in chosen[:10]:
            show_caption(opened, one, layers, q.get(one.id))
        if len(chosen) > 10:
            warn(f"{len(chosen) - 10} more captions match; give a longer part")


FPR = 0.05  # false alarms of the demo: it has hold-out captions enough for a rate


def demo(
    out: OutOpt = Path("findnemo-demo"),
    check: Annotated[
        bool,
        typer.Option("--check", help="Measure the demo model against its ground truth instead."),
    ] = False,
    natural: Annotated[
        bool,
        typer.Option(
            "--natural",
            help="The model that memorized by ordinary fine-tuning: nothing was planted.",
        ),
    ] = False,
    limit: LimitOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Audit the shipped model, offline, with a threshold for 5 % false alarms. With --check: measure what the model card says of it.

    Example: `findnemo demo --natural --out natural`

    Example: `findnemo demo`

    Example: `findnemo demo --limit 4 --out quick`

    Example: `findnemo demo --check`
    """
    from findnemo import tasks

    if not check:
        place, table = "demo-natural" if natural else "demo", tasks.Captions(limit=limit)
        with listening(quiet) as listener:
            run = tasks.audit(place, table, out, tasks.Detecting(fpr=FPR), listener=listener)
        show_result(run, False, json, quiet, report=True)
        return
    if natural:
        raise InputError(
            "--check compares with planted neurons, and 'demo-natural' has none: leave one of the two out"
        )
    from findnemo.benchmark.demo_check import check_demo, figures_table
    from findnemo.tasks.opening import loaded

    with listening(quiet) as listener:
        figures = check_demo(loaded("demo", listener), listener.progress, limit)
    print_json([f.to_json() for f in figures]) if json else stdout.print(figures_table(figures))
    if not all(f.reached for f in figures):
        raise typer.Exit(FAILED)


for command in (
    demo,
    audit,
    calibrate,
    detect,
    localize,
    verify,
    harden,
    merge,
    inspect,
    repair,
    report,
    serve,
    export,
    compare,
    study,
    benchmark,
):
    app.command()(command)
