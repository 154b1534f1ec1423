"""The command `app`: the web app for a run or a model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from findnemo.cli._common import QuietOpt, listening, plain, say, stdout
from findnemo.cli._options import MovedModel, with_option_groups
from findnemo.tasks.options import Workers

SubjectArg = Annotated[
    str,
    typer.Argument(
        help="A run directory, or a model as for `findnemo audit`.", metavar="RUN_OR_MODEL"
    ),
]


@with_option_groups(source=("compile",), workers=("workers", "ray"))
def app(
    subject: SubjectArg,
    source: MovedModel = MovedModel(),
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
    from findnemo import tasks

    with ExitStack() as loading:
        listener = loading.enter_context(listening(quiet))

        def ready(url: str) -> None:
            loading.close()
            stdout.print(plain(f"findnemo app at {url} (Ctrl-C ends it)"))

        tasks.launch(subject, source, calibration, host, port, workers, listener, ready)
    say("ended", quiet)
