"""`findnemo merge`: shards of a run become the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from findnemo.cli._common import JsonOpt, QuietOpt, plain, print_json, stdout


def merge(
    out: Annotated[Path, typer.Argument(help="The run directory to make.", metavar="OUT")],
    shards: Annotated[
        list[Path], typer.Argument(help="Run directories made with --shard.", metavar="SHARD...")
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Also where shards are missing.")
    ] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Join runs made with --shard into the run that an undivided audit would have made.

    The quality check looks at all neurons together: `findnemo verify OUT` makes it afterwards, and the report with it.

    Example: `findnemo merge run run-1 run-2 run-3`

    Example: `findnemo merge run run-* --partial`
    """
    from findnemo.runs.merge import merge as api

    made = api(out, shards, partial)
    if json:
        names = ("captions", "open", "failed", "missing")
        print_json({"run": str(made.path)} | {name: getattr(made, name) for name in names})
    elif not quiet:
        left = [f"{made.open} not looked at yet"] * bool(made.open) + [
            f"{made.failed} failed"
        ] * bool(made.failed)
        left += [f"without shards {', '.join(made.missing)}"] * bool(made.missing)
        told = f"{made.captions} captions in {made.path}" + (
            f" ({'; '.join(left)})" if left else ""
        )
        stdout.print(
            plain(f"{told}; for the quality check and the report: findnemo verify {made.path}"),
            soft_wrap=True,
        )
