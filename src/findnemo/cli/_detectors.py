"""`findnemo detect --detector`: several detectors over one table, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Column, Table

from findnemo.cli._common import LOOSE, plain, print_json, say, stderr, stdout, tell
from findnemo.errors import FAILED, InputError

if TYPE_CHECKING:
    from findnemo.detection import Evaluation
    from findnemo.runs.detectors import Detectors, Result


def refuse_beside(given: dict[str, Any], why: str) -> None:
    """Raises InputError naming the first given option that would do nothing."""
    for option, value in given.items():
        if value:
            raise InputError(f"{option} {why}")


def show_detectors(comparison: Detectors, json: bool, quiet: bool) -> None:
    """Show the results of detectors. Ends the command with status 1 if one failed on a caption."""
    from findnemo.runs.detectors import borrows
    from findnemo.runs.wording import count

    if borrows(comparison.captions):
        say(
            "every caption has a type: every second hold-out caption stands for those that are not"
            " memorized",
            quiet,
        )
    if json:
        print_json(comparison.to_json())
    elif not quiet:
        show(comparison.results)
    if comparison.pictures:
        pictures = count(len(comparison.pictures), "picture")
        say(f"{pictures} in {comparison.pictures[0].parent}", quiet)
    if any(result.failed for result in comparison.results):
        raise typer.Exit(FAILED)


def show(found: Sequence[Result]) -> None:
    """Show the table, and a note on captions that failed."""
    from findnemo.runs.wording import count

    stdout.print(figures_table(found))
    stdout.print(
        "[dim]under the figures: 95 % bootstrap intervals; U-Net evaluations and seconds are per"
        " caption[/]"
    )
    for result in found:
        for line in beside_published(result):
            tell(plain(line))
    for result in found:
        if result.failed:
            stderr.print(
                f"[red]failed:[/] {plain(result.detector)} on {count(result.failed, 'caption')}, for which"
                " the model gives NaN"
            )


def beside_published(result: Result) -> list[str]:
    """The memorization score as a detector, compared with appendix B.4 of Finding NeMo: for all
    captions, and for verbatim ones alone.
    """
    from findnemo.studies.published import DETECTOR

    parts = {"all": (result.evaluation, result.half), "VM": (result.verbatim, result.verbatim_half)}
    lines = []
    for name, (found, half) in parts.items():
        if found is not None and half is not None:
            area, accuracy, rate = DETECTOR[name]
            lines.append(
                f"{result.detector}, {name} (n = {found.positives}): AUROC {found.auroc:.3f} (paper"
                f" {area:g}), accuracy at .5 {half:.3f} (paper {accuracy:g}), at tau"
                f" {found.accuracy:.3f}, TPR at 1 % FPR {found.tpr:.3f} (paper {rate:g}, Stable"
                " Diffusion v1.4)"
            )
    return lines


HEADS = ("threshold", "AUROC", "accuracy", "TPR at\n1 % FPR", "found", "evals", "s")
WIDE = 72  # width of a terminal that fits all columns; a narrower one omits the costs


def figures_table(found: Sequence[Result]) -> Table:
    """A line for each detector with its figures, the intervals below them."""
    heads = HEADS if stdout.width >= WIDE else HEADS[:-2]
    columns = (Column(head, justify="right", no_wrap=True) for head in heads)
    table = Table(Column("detector", overflow="fold"), *columns, **LOOSE)
    for r in found:
        share = f"{r.found}/{r.captions}"
        cost = (f"{r.evaluations:.0f}", f"{r.seconds:.2f}")
        cells = (f"{r.threshold:.4g}", *_figures(r.evaluation), share, *cost)
        table.add_row(plain(r.detector), *cells[: len(heads)])
    return table


def _figures(e: Evaluation | None) -> list[str]:
    if e is None:
        return ["-"] * 3
    figures = (
        (e.auroc, e.auroc_interval),
        (e.accuracy, e.accuracy_interval),
        (e.tpr, e.tpr_interval),
    )
    return [f"{value:.3f}\n[dim]{low:.2f}-{high:.2f}[/]" for value, (low, high) in figures]
