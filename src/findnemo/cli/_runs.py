"""Commands on run directories that load no model: `inspect`, `repair`, `report`, `merge`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from findnemo.cli._common import JsonOpt, QuietOpt, RunArg, plain, print_json, say, stdout, warn
from findnemo.cli._options import with_option_groups
from findnemo.errors import FAILED, InputError
from findnemo.tasks.options import option

if TYPE_CHECKING:
    from findnemo.runs import Run

LISTED = 20  # differences of an evidence pack to list


def inspect(
    run: RunArg,
    caption: Annotated[str | None, typer.Argument(help="Row number, or part of a caption.")] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="List the captions at this false discovery rate (default: the run's, if it has"
            " one)."
        ),
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Show the results of a run: verdict, figures, scores and neurons, or everything about
    one caption.

    Example: `findnemo inspect findnemo-demo`

    Example: `findnemo inspect findnemo-demo "Brantwood"`

    Example: `findnemo inspect run 12 --json`

    Example: `findnemo inspect run --fdr 0.1`
    """
    from findnemo.cli._detectors import show
    from findnemo.cli._overview import show_caption, show_overview
    from findnemo.runs import Run
    from findnemo.runs import inspect as api
    from findnemo.runs.wording import count

    with Run.open(run) as opened:
        found = api(opened, caption, fdr)
        if fdr is not None and found.listed is None and found.detectors is None:
            say(
                "no list: the calibration has no hold-out scores (imported statistics), so that no"
                " caption has a p-value"
            )
        if json:
            print_json(found.to_json())
        elif found.detectors is not None:
            show(found.detectors.results)
        elif found.chosen is None:
            show_overview(opened, found.captions, found.listed, found.q)
        else:
            for one in found.chosen[:10]:
                q = found.q.get(one.id) if found.listed else None
                show_caption(opened, found.captions, one, q)
            if len(found.chosen) > 10:
                warn(f"{count(len(found.chosen) - 10, 'more caption')} fit; give a longer part")


def repair(run: RunArg, json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Check a run, and repair what a bad disk or a bad copy has damaged.

    It names the results that are lost; the next audit computes them again.

    The damaged files stay next to the new ones. A run without damage is not changed. No model is
    loaded.

    Example: `findnemo repair run`

    Example: `findnemo repair run --json`
    """
    from findnemo.runs import repair as api

    found = api(run)
    if json:
        parts = {
            name: [str(v) for v in value] if isinstance(value, tuple) else value
            for name, value in asdict(found).items()
        }
        print_json(parts | {"path": str(run)})
    elif not quiet:
        for line in found.text().splitlines():
            stdout.print(plain(line), soft_wrap=True)


@dataclass(frozen=True)
class EvidenceOptions:
    """An evidence pack, and what it declares."""

    evidence: bool = option(
        False,
        "Write an evidence pack instead: attack classes, what was executed, figures and hashes, as"
        " a page and as JSON.",
    )
    release: str | None = option(
        None, "With --evidence: how the model is released: weights, api or internal."
    )
    by: str | None = option(None, "With --evidence: who made the pack.", metavar="NAME")
    captions: bool = option(
        False,
        "With --evidence: name captions by their text, not by their hash alone.",
        rich_help_panel="Output",
    )


@with_option_groups()
def report(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A run directory; with --verify, the default is the one that holds FILE.",
            metavar="RUN",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write (default: RUN/report.html; for an evidence pack RUN/evidence.html).",
        ),
    ] = None,
    pack: EvidenceOptions = EvidenceOptions(),
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check an evidence pack (JSON or HTML) against its digest and its run instead.",
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    quiet: QuietOpt = False,
) -> None:
    """Write one HTML file that shows a whole run: verdict, images before and after, neurons,
    limits. No model is loaded.

    With --verify, the exit status is 1 if a pack differs from its digest or its run.

    Example: `findnemo report findnemo-demo --open`

    Example: `findnemo report run --evidence --release weights --by "A. Tester"`

    Example: `findnemo report run --verify run/evidence.json`
    """
    from findnemo.cli._detectors import refuse_beside
    from findnemo.report import write
    from findnemo.runs import Run

    declared = {"--release": pack.release, "--by": pack.by, "--captions": pack.captions}
    if verify is not None:
        making = {"--evidence": pack.evidence, **declared, "--out": out, "--open": open_}
        refuse_beside(making, "makes a file, and --verify checks one: leave one of the two out")
        show_check(verify, run, quiet)
        return
    if run is None:
        raise InputError("no run directory: findnemo report RUN")
    if not pack.evidence:
        refuse_beside(declared, "goes with --evidence")
    with Run.open(run) as opened:
        if pack.evidence:
            path = written_evidence(opened, out, pack, quiet)
        else:
            path = write(opened, out)
    if not (quiet or pack.evidence):
        stdout.print(plain(f"report in {path}: open it in a browser"), soft_wrap=True)
    if open_:
        typer.launch(path.absolute().as_uri())


def written_evidence(run: Run, out: Path | None, pack: EvidenceOptions, quiet: bool) -> Path:
    """Write the pack of a run and say where it is; return the path of the page."""
    from findnemo.report import write_evidence

    page, data = write_evidence(run, out, pack.release, pack.by, pack.captions)
    if pack.release is None:
        warn("release not declared: the pack says so; --release weights, api or internal")
    if not quiet:
        stdout.print(plain(f"evidence in {page} and {data}"), soft_wrap=True)
    return page


def show_check(file: Path, place: Path | None, quiet: bool) -> None:
    """Say whether a pack is unchanged, and whether its run still agrees with it.

    `place`: the run; by default the directory of the file, if that is a run. Ends the command with
    status 1 if anything differs.
    """
    from findnemo.report import run_of_evidence, verify_evidence
    from findnemo.runs import Run

    with ExitStack() as stack:
        where = place or run_of_evidence(file)
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


def merge(
    out: Annotated[Path, typer.Argument(help="The run directory to write.", metavar="OUT")],
    shards: Annotated[
        list[Path], typer.Argument(help="Run directories made with --shard.", metavar="SHARD...")
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Join even if shards are missing.")
    ] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Join runs made with --shard into the run that a single audit would have made.

    The quality check needs all neurons together: run `findnemo verify OUT` afterwards. It also writes
    the report.

    Example: `findnemo merge run run-1 run-2 run-3`

    Example: `findnemo merge run run-* --partial`
    """
    from findnemo.runs.merge import merge as api
    from findnemo.runs.wording import count

    merged = api(out, shards, partial)
    if json:
        names = ("captions", "open", "failed", "missing")
        print_json({"run": str(merged.path)} | {name: getattr(merged, name) for name in names})
    elif not quiet:
        left = {
            f"{merged.open} not looked at yet": merged.open,
            f"{merged.failed} failed": merged.failed,
            f"without shards {', '.join(merged.missing)}": merged.missing,
        }
        rest = "; ".join(text for text, there in left.items() if there)
        many = count(merged.captions, "caption")
        captions = f"{many} in {merged.path}{f' ({rest})' if rest else ''}"
        text = f"{captions}; for the quality check and the report: findnemo verify {merged.path}"
        stdout.print(plain(text), soft_wrap=True)
