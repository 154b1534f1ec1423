"""The command `verify`: fresh seeds, images and quality of a run; attempts and attacks on its edited model."""

from __future__ import annotations

from dataclasses import replace

import typer

from findnemo.cli._audit import paper_layers
from findnemo.cli._common import (
    JsonOpt,
    MovedOpt,
    QuietOpt,
    RunArg,
    listening,
    plain,
    print_json,
    stdout,
    warn,
)
from findnemo.cli._options import grouped
from findnemo.cli._robustness import show_robustness
from findnemo.errors import FAILED
from findnemo.tasks.options import Source, Trying, Workers


@grouped(source=("compile",))
def verify(
    run: RunArg,
    trying: Trying = Trying(),
    source: Source = Source(),
    workers: Workers = Workers(),
    model: MovedOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Check a localized run: fresh seeds, finished images, quality; then try to get the memories back, beside controls.

    Example: `findnemo verify findnemo-demo`

    Example: `findnemo verify run --no-attack --model moved/model --json`

    Example: `findnemo verify run --attack-captions 20 --attack-steps 0,10,50,150 --control-images holdout-pictures`

    Example: `findnemo verify run --attack-starts caption,random --attack-captions 0`
    """
    from findnemo import tasks
    from findnemo.cli._show import show_run
    from findnemo.runs import captions_of, counts, summary
    from findnemo.runs.overview import layers_shown

    with listening(quiet or json) as listener:
        done = tasks.verify(run, replace(source, place=model), trying, workers, listener)
    with done.run as opened:
        if json:
            print_json(summary(opened))
        elif not quiet:
            captions = captions_of(opened)
            show_run(opened, list(layers_shown(opened, captions, paper_layers(opened))), captions)
            show_robustness(
                opened.meta("attempts") if trying.attempts else None,
                opened.meta("attack") if trying.attack else None,
            )
            if (opened.path / "report.html").exists():
                where = opened.path / "report.html"
                stdout.print(plain(f"report in {where}: open it in a browser"), soft_wrap=True)
        failed = counts(opened)["failed"] or (opened.meta("quality") or {}).get("failed")
    for line in done.failed:
        warn(line)
    if failed or done.failed:
        raise typer.Exit(FAILED)
