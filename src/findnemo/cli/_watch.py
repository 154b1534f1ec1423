"""`findnemo watch`: judge the checkpoints of a training as they appear."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from findnemo.cli._common import OutOpt, listening, plain, print_json, stdout, tell, warn
from findnemo.cli._options import REQUIRED, Showing, with_option_groups
from findnemo.errors import FAILED
from findnemo.tasks.options import FineTune, Pictures, Source, Workers


@with_option_groups(source=("trust",))
def watch(
    out: OutOpt,
    tuned: FineTune = FineTune(),
    pictures: Pictures = Pictures(),
    source: Source = Source(REQUIRED),
    workers: Workers = Workers(),
    minutes: Annotated[
        float | None,
        typer.Option(help="End after this many minutes without a new checkpoint.", min=0),
    ] = None,
    stop_at_copies: Annotated[
        bool,
        typer.Option(
            "--stop-at-copies", help="End with status 1 at the first checkpoint with a copy."
        ),
    ] = False,
    showing: Showing = Showing(),
) -> None:
    """Check each new checkpoint of a training run for copies of the training pictures.

    A later `findnemo audit` with the same options continues from these images.

    Example: `findnemo watch BASE --lora checkpoints --train-images photos --descriptor sscd.pt
    --out run`

    Example: `findnemo watch BASE --lora checkpoints --train-images photos --stop-at-copies --out
    run`
    """
    from findnemo import tasks
    from findnemo.cli._show import variants_table
    from findnemo.runs.tuned import newest_copies

    patience = None if minutes is None else 60 * minutes
    about: dict[str, Any] | None = None
    with listening(showing.quiet) as listener:
        for about in tasks.watch(
            source, tuned, out, pictures, workers, listener, patience, stop_at_copies
        ):
            newest = about["variants"][-1]
            if showing.json:
                print_json(newest)
            elif not showing.quiet:
                line = f"{newest['name']}: {newest['verdict']}, {newest['copies']} of"
                stdout.print(plain(f"{line} {newest['of']} images are copies"), soft_wrap=True)
    if about is None:
        warn("no checkpoint came: nothing was judged")
    elif not (showing.json or showing.quiet):
        tell(f"\n[bold]{plain(about['sentence'])}[/]")
        stdout.print(variants_table(about))
        stdout.print(plain(f"training pictures in {out / 'training.csv'}"), soft_wrap=True)
    if stop_at_copies and about is not None and newest_copies(about):
        raise typer.Exit(FAILED)
