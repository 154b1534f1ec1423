"""The command `report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from findnemo.cli._common import QuietOpt, RunArg, plain, stdout


def report(
    run: RunArg,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write (default: RUN/report.html).")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    quiet: QuietOpt = False,
) -> None:
    """Write one HTML file that shows a whole run: verdict, pictures before and after, neurons, limits. No model is loaded.

    Example: `findnemo report findnemo-demo --open`
    """
    from findnemo.report import write
    from findnemo.runs import Run

    with Run.open(run) as opened:
        path = write(opened, out)
    if not quiet:
        stdout.print(plain(f"report in {path}: open it in a browser"), soft_wrap=True)
    if open_:
        typer.launch(path.absolute().as_uri())
