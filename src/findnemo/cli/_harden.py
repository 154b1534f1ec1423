"""The command `harden`: fine-tune the edited model of a run against the attack, and check it like the edited one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._common import JsonOpt, MovedOpt, QuietOpt, RunArg, listening, print_json, stdout
from findnemo.cli._options import grouped
from findnemo.cli._robustness import show_robustness
from findnemo.tasks.options import HardeningOptions, Source, Workers


@grouped(source=("compile",))
def harden(
    run: RunArg,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Where to write the hardened checkpoint, a diffusers directory."
        ),
    ],
    hardening: HardeningOptions = HardeningOptions(),
    source: Source = Source(),
    workers: Workers = Workers(),
    model: MovedOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Fine-tune the edited model so that optimised embeddings no longer bring the memorized pictures back.

    Example: `findnemo harden findnemo-demo --captions 4 --out hardened`

    Example: `findnemo harden run --epochs 6 --learning-rate 2e-5 --out hardened`
    """
    from findnemo import tasks

    place = replace(source, place=model)
    with listening(quiet) as listener:
        made = tasks.harden(run, out, hardening, place, workers, listener)
    if json:
        print_json(made.to_json())
    elif made.checks is not None and not quiet:
        _show(made.checks)


def _show(found: dict[str, Any]) -> None:
    """The curves of the attack, memorized pictures beside such that were never seen, and what it costs ordinary captions."""
    show_robustness(found["attempts"], found["attack"])
    for name, values in found["quality"].items():
        told = ", ".join(
            f"{key.replace('_', ' ')} {value:.3g}" for key, (value, *_) in values.items()
        )
        stdout.print(f"{name}, {found['prompts']} ordinary captions: {told}", soft_wrap=True)
