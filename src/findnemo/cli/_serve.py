"""The command `app`: the web app for a run or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from findnemo.cli._common import QuietOpt, listening, plain, say, stdout, warn
from findnemo.cli._options import Moved, grouped
from findnemo.tasks.options import Workers

SubjectArg = Annotated[
    str,
    typer.Argument(
        help="A run directory, or a model as for `findnemo audit`.", metavar="RUN_OR_MODEL"
    ),
]


@grouped(source=("compile",), workers=("workers", "ray"))
def app(
    subject: SubjectArg,
    source: Moved = Moved(),
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
    if is_run(subject):
        with Run.open(subject) as run:
            model = source_of(run, source, ("model",))
    else:
        model = without_run(subject, source)
    with listening(quiet) as listener:
        opened = loaded(model, listener)
    if host not in ("127.0.0.1", "localhost", "::1"):
        warn(f"everyone who can reach {host} can use this app, its model and its exports")
    with threads(workers.threads or suited(opened.denoiser, opened.latent_shape)):
        launch(
            subject,
            calibration,
            host,
            port,
            opened,
            lambda url: stdout.print(plain(f"findnemo app at {url} (Ctrl-C ends it)")),
        )
    say("ended", quiet)
