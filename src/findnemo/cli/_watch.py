"""`findnemo watch`: judge the checkpoints of a training as they appear."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from findnemo.cli._common import (
    JsonOpt,
    ModelArg,
    OutOpt,
    QuietOpt,
    listening,
    plain,
    print_json,
    stdout,
    tell,
    warn,
)
from findnemo.cli._options import grouped
from findnemo.errors import FAILED, InputError
from findnemo.tasks.options import FineTune, Pictures, Source, Workers


@grouped(source=("trust",))
def watch(
    model: ModelArg,
    out: OutOpt,
    tuned: FineTune = FineTune(),
    pictures: Pictures = Pictures(),
    source: Source = Source(),
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
    json: JsonOpt = False,
    quiet: QuietOpt = False,
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

    if tuned.train_images is None:
        raise InputError("give --train-images DIR, the pictures that the model is trained on")
    place = replace(source, place=model)
    patience = None if minutes is None else 60 * minutes
    about: dict[str, Any] | None = None
    copies = False
    with listening(quiet) as listener:
        for about in tasks.watch(place, tuned, out, pictures, workers, listener, patience):
            newest = about["variants"][-1]
            if json:
                print_json(newest)
            elif not quiet:
                line = f"{newest['name']}: {newest['verdict']}, {newest['copies']} of"
                stdout.print(plain(f"{line} {newest['of']} images are copies"), soft_wrap=True)
            copies = newest["verdict"] == "copies"
            if copies and stop_at_copies:
                break
    if about is None:
        warn("no checkpoint came: nothing was judged")
    elif not (json or quiet):
        tell(f"\n[bold]{plain(about['sentence'])}[/]")
        stdout.print(variants_table(about))
        stdout.print(plain(f"training pictures in {out / 'training.csv'}"), soft_wrap=True)
    if copies and stop_at_copies:
        raise typer.Exit(FAILED)
