"""The command `verify`: fresh seeds, images and quality of a run; attempts and attacks on its edited model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._common import (
    ALONE,
    OF_RUN,
    Crew,
    DeviceOpt,
    DtypeOpt,
    JsonOpt,
    QuietOpt,
    RunArg,
    Source,
    TrustOpt,
    at_work,
    bar,
    opens_model,
    print_json,
    say,
    stoppable,
    takes_workers,
    warn,
)
from findnemo.cli._robustness import show_robustness
from findnemo.cli._steps import opened, plan_of, run_stages, shard_of
from findnemo.errors import FAILED, InputError


@opens_model
@takes_workers
def verify(
    run: RunArg,
    model: Source = OF_RUN,
    attempts: Annotated[
        bool, typer.Option(help="Try other samplers, steps, guidance, words, scripts and img2img.")
    ] = True,
    attack: Annotated[
        bool,
        typer.Option(
            help="Optimise text embeddings for the pictures, beside controls, as a curve over steps."
        ),
    ] = True,
    attack_captions: Annotated[
        int,
        typer.Option(
            help="Memorized captions to attack, and as many ordinary ones; 0: all.", min=0
        ),
    ] = 5,
    attack_steps: Annotated[
        str, typer.Option(help="Steps of the attack after which images are made.")
    ] = "0,5,10,20,50",
    attack_starts: Annotated[
        str,
        typer.Option(
            help="Embeddings that the attack begins with: caption, random, empty; the best counts at each step."
        ),
    ] = "caption",
    control_images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures that the model never saw (default: the memorized ones scrambled)."
        ),
    ] = None,
    trust: TrustOpt = False,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    crew: Crew = ALONE,
) -> None:
    """Check a localized run: fresh seeds, finished images, quality; then try to get the memories back, beside controls.

    Example: `findnemo verify findnemo-demo`

    Example: `findnemo verify run --no-attack --model moved/model --json`

    Example: `findnemo verify run --attack-captions 20 --attack-steps 0,10,50,150 --control-images holdout-pictures`

    Example: `findnemo verify run --attack-starts caption,random --attack-captions 0`
    """
    from findnemo.calibration import Calibration
    from findnemo.robustness.controls import pictures
    from findnemo.runs import Run, settings_of, summary
    from findnemo.runs.robustness import Effort, memorized

    steps, starts = steps_of(attack_steps), starts_of(attack_starts)
    with Run.open(run) as old:
        settings, source = settings_of(old), model.of_run(old, trust)
        attacked = len(memorized(old.captions(), attack_captions))
    controls = (
        pictures(control_images, least=max(attacked, 1)) if control_images else ()
    )  # one a caption: twice the same tells nothing new
    made, plan, part = (
        Calibration.load(run / "calibration"),
        plan_of(settings),
        shard_of(settings.get("shard")),
    )
    more = (attempts or attack) and part is None
    failed = False
    try:
        with at_work(source, crew, device, dtype or settings["dtype"], quiet) as pool:
            shown = json and not more
            run_stages(
                pool,
                None,
                made,
                run,
                ("verify",),
                plan,
                False,
                shown,
                quiet or json,
                report=part is None,
                shard=part,
            )
    except typer.Exit:  # captions failed: what did not is attacked all the same
        failed = True
    if more:
        effort = Effort(attack_captions, steps, starts, controls=controls)
        failed |= attack_run(
            run, source, trust, device, dtype, quiet or json, attempts, attack, effort
        )
    if json and more:
        with Run.open(run) as done:
            print_json(summary(done))
    if failed:
        raise typer.Exit(FAILED)


def attack_run(
    run: Path,
    model: Source,
    trust: bool,
    device: str | None,
    dtype: str | None,
    quiet: bool,
    attempts: bool,
    attack: bool,
    effort: Any,
) -> bool:
    """Attempts and the attack on the edited model of a run, with their controls; in this process. What is answered is not done again.

    Whether anything failed.
    """
    from findnemo.cli._report import write_report
    from findnemo.runs import write_results
    from findnemo.runs._tried import ATTACK, ATTEMPT
    from findnemo.runs.robustness import attack_all, evaluations, failures, memorized, try_out

    with opened(run, model, device, dtype, quiet, trust) as work:
        if not memorized(work.run.captions(), 1):
            say("no memorized caption has its neurons off: there is nothing to attack", quiet)
            return False
        stages = [(ATTEMPT, try_out)] * attempts + [(ATTACK, attack_all)] * attack
        costs = {
            name.rstrip(":"): cost
            for name, _ in stages
            if (cost := evaluations(work, effort, name))
        }
        if costs:
            told = ", ".join(
                f"{name} about {cost:,} U-Net evaluations" for name, cost in costs.items()
            )
            left_out = " and ".join(f"--no-{name}" for name in costs)
            say(
                f"{told}, in one process; {left_out} leave{'s it' if len(costs) == 1 else ' them'} out",
                quiet,
            )
        for _, do in stages:
            with stoppable() as stop, bar(quiet) as update:
                do(work, effort, None, update, stop)
        if not quiet:
            show_robustness(
                work.run.meta("attempts") if attempts else None,
                work.run.meta("attack") if attack else None,
            )
        write_results(work.run)
        write_report(work.run, quiet=quiet)
        failed = failures(work.run.captions())
    for line in failed:
        warn(line)
    return bool(failed)


def steps_of(text: str) -> tuple[int, ...]:
    """Steps of an attack from `0,5,10`. Raises InputError for anything else.

    >>> steps_of("10,0,5")
    (0, 5, 10)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) <= 100_000 for part in parts):
        raise InputError(
            f"attack steps {text[:60]!r} are none: give numbers with commas, such as 0,5,10,20,50"
        )
    return tuple(sorted({int(part) for part in parts}))


def starts_of(text: str) -> tuple[str, ...]:
    """Starts of an attack from `caption,random`, each once. Raises InputError for one that is not known.

    >>> starts_of("caption, random,caption")
    ('caption', 'random')
    """
    from findnemo.robustness import STARTS

    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in parts if part not in STARTS]
    if unknown:
        raise InputError(
            f"attack start {unknown[0][:60]!r} is not known: use one or several of {', '.join(STARTS)}"
        )
    return parts
