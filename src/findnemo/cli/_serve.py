"""The command `app`: the web app for a run or a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from findnemo.cli._common import MovedOpt, QuietOpt, listening, plain, say, stdout, warn
from findnemo.cli._options import grouped
from findnemo.tasks.options import Source, Workers

PlaceArg = Annotated[
    str,
    typer.Argument(
        help="A run directory, or a model as for `findnemo audit`.", metavar="RUN_OR_MODEL"
    ),
]


@grouped(source=("compile",), workers=("workers", "ray"))
def app(
    place: PlaceArg,
    source: Source = Source(),
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            "-c",
            help="A calibration from `findnemo calibrate`; a run and 'demo' have their own.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; by default only this machine can open the app."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port; default: the first free one from 7860.", min=1, max=65535),
    ] = None,
    model: MovedOpt = None,
    workers: Workers = Workers(),
    quiet: QuietOpt = False,
) -> None:
    """Open a run in the browser: switch neurons by hand, examine any caption, export.

    Example: `findnemo app run`

    Example: `findnemo app demo --port 8000`
    """
    from findnemo.app import launch, require_gradio
    from findnemo.app.subject import is_run
    from findnemo.runs import Run
    from findnemo.runtime.threads import suited, threads
    from findnemo.tasks.opening import loaded, source_of, without_run

    require_gradio()
    given = replace(source, place=model)
    if is_run(place):
        with Run.open(place) as run:
            given = source_of(run, given, ("model",))
    else:
        given = without_run(place, given)
    with listening(quiet) as listener:
        opened = loaded(given, listener)
    if host not in ("127.0.0.1", "localhost", "::1"):
        warn(f"everyone who can reach {host} can use this app, its model and its exports")
    with threads(workers.threads or suited(opened.denoiser, opened.latent_shape)):
        launch(
            place,
            calibration,
            host,
            port,
            opened,
            lambda url: stdout.print(plain(f"findnemo app at {url} (Ctrl-C ends it)")),
        )
    say("ended", quiet)
