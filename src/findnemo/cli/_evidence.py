"""`findnemo report --evidence` and `--verify`: the evidence pack in a terminal."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from findnemo.cli._common import plain, say, stdout, warn
from findnemo.errors import FAILED

if TYPE_CHECKING:
    from pathlib import Path

    from findnemo.runs import Run

LISTED = 20  # differences to list


def written_evidence(
    run: Run, out: Path | None, release: str | None, by: str | None, captions: bool, quiet: bool
) -> Path:
    """Write the pack of a run and say where it is; return the path of the page."""
    from findnemo.report import write_evidence

    page, data = write_evidence(run, out, release, by, captions)
    if release is None:
        warn("release not declared: the pack says so; --release weights, api or internal")
    if not quiet:
        stdout.print(plain(f"evidence in {page} and {data}"), soft_wrap=True)
    return page


def show_check(file: Path, place: Path | None, quiet: bool) -> None:
    """Say whether a pack is unchanged, and whether its run still agrees with it.

    `place`: the run; by default the directory of the file, if that is a run. Ends the command with
    status 1 if anything differs.
    """
    from findnemo.report import verify_evidence
    from findnemo.runs import Run
    from findnemo.runs.store import DATABASE

    beside = file.parent if (file.parent / DATABASE).is_file() else None
    with ExitStack() as stack:
        where = place or beside
        run = None if where is None else stack.enter_context(Run.open(where))
        found = verify_evidence(file, run)
    for line in found.differences[:LISTED]:
        stdout.print(f"[red]differs:[/] {plain(line)}", soft_wrap=True)
    if (more := len(found.differences) - LISTED) > 0:
        stdout.print(f"and {more} more differences")
    for line in found.notes:
        say(line, quiet)
    if found.differences:
        raise typer.Exit(FAILED)
    if not quiet:
        against = (
            "no run was given: only the digest was checked"
            if found.run is None
            else f"{found.run} still is what it says"
        )
        stdout.print(plain(f"{file}: the digest fits the content, {found.digest}"), soft_wrap=True)
        stdout.print(plain(against), soft_wrap=True)
        say("a digest is no signature: it does not tell who made a file, nor that it is true")
