"""The commands `verify` and `harden`: checks of the memories of a run, and hardening of its edited
model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._closing import show_closing, show_places
from findnemo.cli._common import RunArg, listening, print_json, tell, warn
from findnemo.cli._options import MovedModel, Showing, with_option_groups
from findnemo.cli._robustness import show_robustness
from findnemo.cli._show import show_run
from findnemo.errors import FAILED
from findnemo.tasks.options import HardeningOptions, Pictures, Trying, Workers


@with_option_groups(source=("compile",), pictures=("images", "image_steps", "guidance", "sampler"))
def verify(
    run: RunArg,
    trying: Trying = Trying(),
    pictures: Pictures = Pictures(),
    source: MovedModel = MovedModel(),
    workers: Workers = Workers(),
    showing: Showing = Showing(),
) -> None:
    """Check the neurons of a run on fresh seeds, finished images and quality, then try to get
    the memories back, with controls.

    Example: `findnemo verify findnemo-demo`

    Example: `findnemo verify run --no-attack --model moved/model --json`

    Example: `findnemo verify run --attack-captions 20 --attack-steps 0,10,50,150 --control-images
    holdout-pictures`

    Example: `findnemo verify run --descriptor sscd.pt --clip openai/clip-vit-base-patch32`

    Example: `findnemo verify run --attack-starts caption,random --attack-captions 0`
    """
    from findnemo import tasks
    from findnemo.runs import any_failed, captions_of, counts, summary
    from findnemo.runs.verdict import ALL

    with listening(showing.quiet or showing.json) as listener:
        done = tasks.verify(run, source, trying, workers, listener, pictures)
    with done.run as opened:
        if showing.json:
            print_json(summary(opened))
        elif not showing.quiet:
            captions = captions_of(opened)
            show_run(opened, captions)
            show_robustness(
                opened.meta("attempts") if trying.attempts else None,
                opened.meta("attack") if trying.attack else None,
            )
            show_closing(opened, captions, ALL)
        broken = any_failed(opened, counts(opened))
    for line in done.failed:
        warn(line)
    if broken or done.failed:
        raise typer.Exit(FAILED)


@with_option_groups(source=("compile",))
def harden(
    run: RunArg,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Directory to write the hardened checkpoint to, in diffusers' form."
        ),
    ],
    hardening: HardeningOptions = HardeningOptions(),
    source: MovedModel = MovedModel(),
    workers: Workers = Workers(),
    showing: Showing = Showing(),
) -> None:
    """Fine-tune the edited model, so that optimized embeddings no longer bring the
    memorized pictures back.

    Example: `findnemo harden findnemo-demo --captions 4 --out hardened`

    Example: `findnemo harden run --epochs 6 --learning-rate 2e-5 --out hardened`
    """
    from findnemo import tasks

    with listening(showing.quiet) as listener:
        hardened = tasks.harden(run, out, hardening, source, workers, listener)
    if showing.json:
        print_json(hardened.to_json())
    elif hardened.checks is not None and not showing.quiet:
        _show_checks(hardened.checks)
        show_places([("model", str(out)), ("report", str(run / "report.html"))])


def _show_checks(checks: dict[str, Any]) -> None:
    """Show the curves of the attack, with pictures never seen as controls, and the effect of
    hardening on ordinary captions.
    """
    show_robustness(checks["attempts"], checks["attack"])
    for name, values in checks["quality"].items():
        figures = ", ".join(
            f"{key.replace('_', ' ')} {value:.3g}" for key, (value, *_) in values.items()
        )
        tell(f"{name}, {checks['prompts']} ordinary captions: {figures}")
