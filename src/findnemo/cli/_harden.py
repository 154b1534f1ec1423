"""The command `harden`: fine-tune the edited model of a run against the attack, and check it like the edited one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._common import (
    OF_RUN,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    QuietOpt,
    RunArg,
    SeedOpt,
    Source,
    TrustOpt,
    bar,
    opens_model,
    print_json,
    say,
    stdout,
    stoppable,
    warn,
)
from findnemo.cli._robustness import show_robustness
from findnemo.cli._steps import opened, refuse_shard

RATES = {"demo": 1e-4}  # learning rates of models that need another than the usual


@opens_model
def harden(
    run: RunArg,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Where to write the hardened checkpoint, a diffusers directory."
        ),
    ],
    captions: Annotated[
        int, typer.Option(help="Harden against so many memorized captions; 0: all of them.", min=0)
    ] = 0,
    epochs: Annotated[
        int, typer.Option(help="Times that embeddings are sought and answered.", min=1)
    ] = 4,
    attack_steps: Annotated[
        int, typer.Option(help="Steps of each search for an embedding.", min=1)
    ] = 30,
    updates: Annotated[int, typer.Option(help="Updates of the weights in an epoch.", min=1)] = 60,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW (1e-5; demo 1e-4).")] = None,
    keep: Annotated[
        float, typer.Option(help="How firmly predictions for ordinary captions are held.", min=0)
    ] = 100.0,
    check: Annotated[
        bool, typer.Option(help="Attack the hardened model anew, beside the edited one.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    model: Source = OF_RUN,
    trust: TrustOpt = False,
    seed: SeedOpt = 0,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Fine-tune the edited model so that optimised embeddings no longer bring the memorized pictures back.

    Example: `findnemo harden findnemo-demo --captions 4 --out hardened`

    Example: `findnemo harden run --epochs 6 --learning-rate 2e-5 --out hardened`
    """
    from findnemo.cli._report import write_report
    from findnemo.edits import effects
    from findnemo.export._checks import check_checkpoint
    from findnemo.export._files import check_target, whole
    from findnemo.export._source import with_kept
    from findnemo.robustness import harden as api
    from findnemo.runs import Run, all_neurons
    from findnemo.runs.hardening import (
        CHECKED,
        challenged,
        check_hardened,
        harden_run,
        ordinary_captions,
    )
    from findnemo.runs.robustness import Effort
    from findnemo.runtime.notices import told_to

    refuse_shard(run)
    with Run.open(run) as old:
        source = model.of_run(old, trust)
    check_target(out, True, force, str(source))
    rate = RATES.get(str(source), 1e-5) if learning_rate is None else learning_rate
    settings = api.Hardening(epochs, attack_steps, updates, rate, keep=keep, seed=seed)
    with opened(run, model, device, dtype, quiet, trust) as work:
        wanted = challenged(work, captions)
        cost = api.evaluations(
            settings, len(wanted), len(ordinary_captions(work)[0]), work.plan.image_settings
        )
        say(
            f"{len(wanted)} captions: about {cost:,} U-Net evaluations; the checks take as many again",
            quiet,
        )
        kept = run / "harden"
        with stoppable() as stop, bar(quiet) as update:
            made = harden_run(
                work,
                wanted,
                settings,
                kept,
                lambda done, total, loss: update("harden", done, total),
                stop,
            )
            with whole(out) as part, told_to(warn):
                with_kept(work.model, made.pipeline).save_pretrained(part, safe_serialization=True)
                check_checkpoint(part, made, effects(made, all_neurons(work.run.captions())))
            say(f"hardened model written to {out}", quiet)
            if check:
                effort = replace(Effort(), captions=min(len(wanted), CHECKED))
                about = check_hardened(work, made, effort, settings, update, stop)
                write_report(work.run, quiet=quiet or json)
            (kept / "weights.safetensors").unlink(
                missing_ok=True
            )  # only now: with --force an interrupted check goes on at once
        found = {
            "out": str(out),
            "captions": len(wanted),
            **(
                about | {name: work.run.meta(name) for name in ("attack", "attempts")}
                if check
                else {}
            ),
        }
    if json:
        print_json(found)
    elif check and not quiet:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    """The curves of the attack, memorized pictures beside such that were never seen, and what it costs ordinary captions."""
    show_robustness(found["attempts"], found["attack"])
    for name, values in found["quality"].items():
        told = ", ".join(
            f"{key.replace('_', ' ')} {value:.3g}" for key, (value, *_) in values.items()
        )
        stdout.print(f"{name}, {found['prompts']} ordinary captions: {told}", soft_wrap=True)
