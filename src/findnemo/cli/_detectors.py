"""`findnemo detect --detector`: several detectors over one table, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from findnemo.cli._common import plain, print_json, say, stderr, stdout
from findnemo.errors import FAILED, InputError

if TYPE_CHECKING:
    from findnemo.detection import Evaluation
    from findnemo.runs import Caption, Run
    from findnemo.runs.detectors import Result
    from findnemo.tasks import Detectors


def refuse_beside(given: dict[str, Any], why: str) -> None:
    """Raises InputError naming the first option that is given and would do nothing."""
    for option, value in given.items():
        if value:
            raise InputError(f"{option} {why}")


def show_detectors(made: Detectors, json: bool, quiet: bool) -> None:
    """What came of detectors. Ends the command with status 1 where one failed on a caption."""
    from findnemo.runs.detectors import borrows

    found, captions, drawn = made.results, made.captions, made.pictures
    if borrows(captions):
        say(
            "every caption has a type: every second hold-out caption stands for those that are not memorized",
            quiet,
        )
    if json:
        print_json(as_json(found, captions))
    elif not quiet:
        show(found)
    if drawn:
        say(f"{len(drawn)} pictures in {drawn[0].parent}", quiet)
    if any(r.failed for r in found):
        raise typer.Exit(FAILED)


def inspect_detectors(run: Run, json: bool) -> None:
    """Show what a run of detectors alone holds. Raises InputError if it holds nothing."""
    from findnemo.runs.detectors import HOLDOUT, STAGE, results

    captions = list(run.captions())
    names = [
        n for n in (run.meta("detectors") or []) if any(STAGE + n in c.results for c in captions)
    ]
    if not names:
        raise InputError(
            f"{run.path} holds no results: neither an audit's nor those of `findnemo detect --detector`"
        )
    found = [
        result
        for n in names
        for result in results(run, captions, list(run.meta(HOLDOUT + n) or {}), [n])
    ]
    print_json(as_json(found, captions)) if json else show(found)


def as_json(found: Sequence[Result], captions: Sequence[Caption]) -> dict[str, Any]:
    """The figures of every detector, and every caption with its scores."""
    from findnemo.runs.detectors import STAGE

    names = [r.detector for r in found]
    rows = [
        {
            "row": c.row,
            "caption": c.text,
            "type": c.type,
            "scores": {n: c.results[STAGE + n]["value"] for n in names if STAGE + n in c.results},
        }
        for c in captions
    ]
    return {"detectors": [r.to_json() for r in found], "captions": rows}


def show(found: Sequence[Result]) -> None:
    """The table, and a word on captions that failed."""
    stdout.print(figures_table(found))
    stdout.print(
        "[dim]under the figures: 95 % bootstrap intervals; U-Net evaluations and seconds are per caption[/]"
    )
    for result in found:
        for line in beside_published(result):
            stdout.print(plain(line), soft_wrap=True)
    for result in found:
        if result.failed:
            stderr.print(
                f"[red]failed:[/] {plain(result.detector)} on {result.failed} captions, for which the model gives NaN"
            )


def beside_published(result: Result) -> list[str]:
    """The memorization score as a detector beside appendix B.4 of Finding NeMo: all captions, and the verbatim ones alone."""
    from findnemo.studies._published import DETECTOR

    lines = []
    for name, made, half in (
        ("all", result.evaluation, result.half),
        ("VM", result.verbatim, result.verbatim_half),
    ):
        if made is not None and half is not None:
            area, accuracy, rate = DETECTOR[name]
            lines.append(
                f"{result.detector}, {name} (n = {made.positives}): AUROC {made.auroc:.3f} (paper {area:g}), accuracy at .5 {half:.3f} (paper "
                f"{accuracy:g}), at tau {made.accuracy:.3f}, TPR at 1 % FPR {made.tpr:.3f} (paper {rate:g}, Stable Diffusion v1.4)"
            )
    return lines


def figures_table(found: Sequence[Result]) -> Table:
    """A line a detector with its figures, the intervals under them; narrow enough for 80 columns."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("detector", no_wrap=True)
    for name in ("threshold", "AUROC", "accuracy", "TPR at\n1 % FPR", "found", "evals", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in found:
        cost = (f"{r.evaluations:.0f}", f"{r.seconds:.2f}")
        table.add_row(
            plain(r.detector),
            f"{r.threshold:.4g}",
            *_figures(r.evaluation),
            f"{r.found}/{r.captions}",
            *cost,
        )
    return table


def _figures(e: Evaluation | None) -> tuple[str, str, str]:
    if e is None:
        return "-", "-", "-"
    return (
        _with(e.auroc, e.auroc_interval),
        _with(e.accuracy, e.accuracy_interval),
        _with(e.tpr, e.tpr_interval),
    )


def _with(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f}\n[dim]{interval[0]:.2f}-{interval[1]:.2f}[/]"
