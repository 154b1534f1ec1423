"""The commands of the path: calibrate, detect, localize, audit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from findnemo.cli._common import OutOpt, listening, plain, print_json, stdout
from findnemo.cli._options import REQUIRED, RunOptions, Showing, StatusOptions, with_option_groups
from findnemo.errors import FAILED, InputError
from findnemo.runtime.plugins import also
from findnemo.tasks.options import (
    Captions,
    Detecting,
    FineTune,
    Localizing,
    Pictures,
    Source,
    Workers,
    option,
)

if TYPE_CHECKING:
    from findnemo.calibration import Calibration
    from findnemo.runs import Run


@dataclass(frozen=True)
class HoldoutOptions(Captions):
    """Captions that are not memorized."""

    prompts: Any = option(None, "Hold-out captions (not memorized).", "--prompts", "-p")


@dataclass(frozen=True)
class Published:
    """Activation statistics that somebody has published, and their threshold."""

    import_statistics: Path | None = option(
        None, "Import published activation statistics (.pt) instead."
    )
    tau: float | None = option(None, "Threshold of the imported statistics (0.428).")


@with_option_groups(
    source=("trust",),
    captions=("shard",),
    detecting=("holdout", "calibration", "fdr", "miss", "budget", "like"),
)
def calibrate(
    out: OutOpt,
    captions: HoldoutOptions = HoldoutOptions(),
    detecting: Detecting = Detecting(),
    source: Source = Source(REQUIRED),
    workers: Workers = Workers(),
    published: Published = Published(),
    force: Annotated[
        bool, typer.Option("--force", help="Replace another calibration in --out.")
    ] = False,
    showing: Showing = Showing(),
) -> None:
    """Measure activation statistics and the threshold tau on hold-out captions.

    Example: `findnemo calibrate CompVis/stable-diffusion-v1-4 --prompts laion.csv --limit 1000
    --out calibration`

    Example: `findnemo calibrate model.safetensors --config
    stable-diffusion-v1-5/stable-diffusion-v1-5 --prompts holdout.txt --fpr 0.01 --out calibration`

    Example: `findnemo calibrate MODEL --prompts holdout.txt --fpr 0.01 --confidence 0.95 --out
    calibration`

    Example: `findnemo calibrate MODEL --variant released --import-statistics statistics.pt --tau
    0.428 --out calibration`
    """
    from findnemo import tasks
    from findnemo.calibration import PUBLISHED_TAU

    statistics = published.import_statistics
    if (captions.prompts is None) == (statistics is None):
        raise InputError("give either --prompts FILE or --import-statistics FILE")
    with listening(showing.quiet) as listener:
        if statistics is None:
            found = tasks.calibrate(source, captions, out, detecting, workers, listener, force)
        else:
            threshold = PUBLISHED_TAU if published.tau is None else published.tau
            found = tasks.calibrate_published(
                source, statistics, out, threshold, detecting.seed or 0, listener, force
            )
    rate = {"confidence": found.confidence, "rate_under": found.rate_bound()}
    about = {
        "tau": found.tau,
        "prompts": found.count,
        "scored": len(found.trajectories),
        "variant": found.settings.variant,
        "fpr": found.fpr,
        "calibration": str(out),
        **(rate if found.fpr is not None else {}),
    }
    if showing.json:
        print_json(about)
    elif not showing.quiet:
        stdout.print(
            f"{_how_well(found)}; calibration written to {plain(str(out))}", soft_wrap=True
        )


def _how_well(calibration: Calibration) -> str:
    """tau, its precision, and whether scoring stopped early."""
    from findnemo.calibration import tau_interval

    tau = f"tau = {calibration.tau:.4f}"
    scored = len(calibration.trajectories)
    if not scored:
        return f"{tau} as given, with imported statistics"
    if calibration.fpr is None:
        low, high = tau_interval(calibration.scores)
        text = f"{tau} from {scored} captions (95 % interval {low:.4f} to {high:.4f})"
    else:
        text = f"{tau} from {scored} captions: {_promise(calibration, calibration.fpr)}"
    if scored < calibration.count:
        text += f", precise enough; activation statistics from all {calibration.count}"
    return text


def _promise(calibration: Calibration, rate: float) -> str:
    """What a threshold for a rate promises for captions like the hold-out captions."""
    reach = f"at most {_percent(rate)} of ordinary captions reach it"
    if calibration.confidence is not None:
        return f"{reach}, with {_percent(calibration.confidence)} confidence"
    bound = _percent(calibration.rate_bound() or 0.0)
    return (
        f"{reach} on average over calibrations; with these {len(calibration.trajectories)} captions"
        f" the realised rate is under {bound} with 95 % confidence"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


@with_option_groups(detecting=("confidence",))
def detect(
    out: OutOpt,
    captions: Captions = Captions(),
    detecting: Detecting = Detecting(),
    source: Source = Source(REQUIRED),
    workers: Workers = Workers(),
    detector: Annotated[
        str | None,
        typer.Option(
            help="Compare detectors instead: agreement, ssim, magnitude, entropy-d, entropy-e,"
            " one-step, edges, bright-ending, anisotropy, sharpness, curvature, dsm, dsm-1,"
            " latent-updates." + also("detectors")
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="With --detector: write saliency and mask pictures of the captions that have a type.",
        ),
    ] = False,
    showing: StatusOptions = StatusOptions(),
) -> None:
    """Find suspected captions, or compare detectors on captions with known labels.

    Example: `findnemo detect MODEL --prompts captions.csv --calibration calibration --out run`

    Example: `findnemo detect MODEL --prompts captions.csv --calibration calibration
    --fail-on-memorized --out run`

    Example: `findnemo detect MODEL --prompts captions.csv --calibration calibration --fdr 0.1 --out
    run`

    Example: `findnemo detect MODEL --prompts captions.csv --calibration calibration --budget 20000
    --out run`

    Example: `findnemo detect MODEL --prompts captions.csv --like run --out siblings`

    Example: `findnemo detect demo --detector ssim,magnitude,edges --out run`
    """
    from findnemo import tasks
    from findnemo.cli._detectors import refuse_beside, show_detectors

    if detector is not None:
        refuse_beside(
            {
                "--calibration": detecting.calibration,
                "--fdr": detecting.fdr,
                "--miss": detecting.miss,
                "--budget": detecting.budget,
                "--like": detecting.like,
                "--fail-on-memorized": showing.fail_on_memorized,
                "--shard": captions.shard,
            },
            "does nothing with --detector, whose thresholds come from hold-out captions: leave one"
            " of them out",
        )
        holdout = detecting.holdout
        with listening(showing.quiet) as listener:
            found = tasks.compare_detectors(
                source, detector, captions, out, holdout, pictures, workers, listener
            )
        show_detectors(found, showing.json, showing.quiet)
        return
    refuse_beside({"--pictures": pictures}, "goes with --detector: name one, or leave it out")
    with listening(showing.quiet) as listener:
        run = tasks.detect(source, captions, out, detecting, workers, listener)
    show_result(run, showing)


@with_option_groups(detecting=("confidence",))
def localize(
    out: OutOpt,
    captions: Captions = Captions(),
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
    source: Source = Source(REQUIRED),
    workers: Workers = Workers(),
    showing: StatusOptions = StatusOptions(),
) -> None:
    """Find the neurons that hold the captions over the threshold.

    Example: `findnemo localize demo --prompts findnemo-demo/results.csv --calibration
    findnemo-demo/calibration --out run`

    Example: `findnemo localize MODEL --prompts captions.csv --calibration calibration --search
    listing --limit 20 --out run`

    Example: `findnemo localize MODEL --prompts captions.csv --calibration calibration --max-impact
    0.02 --unrelated ordinary.txt --out run`
    """
    from findnemo import tasks

    with listening(showing.quiet) as listener:
        run = tasks.localize(source, captions, out, detecting, localizing, workers, listener)
    show_result(run, showing)


@with_option_groups(detecting=("confidence",))
def audit(
    captions: Captions = Captions(),
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
    pictures: Pictures = Pictures(),
    source: Source = Source(REQUIRED),
    tuned: FineTune = FineTune(),
    workers: Workers = Workers(),
    written: RunOptions = RunOptions(REQUIRED),
) -> None:
    """Run the whole path: calibrate, detect, localize, verify, report.

    The same command continues where it stopped.

    Example: `findnemo audit CompVis/stable-diffusion-v1-4 --prompts captions.csv --holdout
    laion.csv -o run`

    Example: `findnemo audit BASE --lora checkpoints --train-images photos -o run`

    Example: `findnemo audit model.safetensors --config stable-diffusion-v1-5/stable-diffusion-v1-5
    --prompts captions.csv --holdout laion.csv --descriptor sscd.pt --clip CLIP --out run`

    Example: `findnemo audit MODEL --prompts captions.csv --holdout laion.csv --fpr 0.01 --fdr 0.1
    --out run`

    Example: `findnemo audit MODEL --prompts captions.csv --holdout laion.csv --max-impact 0.02
    --out run`

    Example: `findnemo audit CompVis/stable-diffusion-v1-4 --prompts captions.csv --holdout
    laion.csv --sampler ddim --images 10 --out run`

    Example: `findnemo audit MODEL --prompts captions.csv --calibration calibration --limit 20
    --out run`

    Example: `findnemo audit BASE --lora checkpoints --lora-scale 0.6,0.8,1 --train-images photos
    --descriptor sscd.pt --out run`

    Example: `findnemo audit MODEL --prompts captions.csv --calibration calibration --descriptor
    sscd.pt --out run`

    Example: `findnemo audit demo --track tensorboard --fail-on-memorized --quiet --out run`
    """
    from findnemo import tasks

    table = tasks.audited_of(tuned, captions)
    with listening(written.quiet) as listener:
        run = tasks.audit(
            source, table, written, detecting, localizing, pictures, workers, listener
        )
    show_result(run, written)


def show_result(run: Run, showing: StatusOptions) -> None:
    """Show the results of the requested captions.

    Ends the command with status 1 if a caption failed; with `fail_on_memorized`, also by
    `runs.any_memorized`.
    """
    from findnemo.cli._closing import show_closing
    from findnemo.cli._show import show_run, show_training
    from findnemo.runs import ASKED, any_failed, any_memorized, captions_to_show, counts, summary

    with run:
        numbers = counts(run, ASKED)
        if showing.json:
            print_json(summary(run))
        elif not showing.quiet:
            show_training(run)
            captions = captions_to_show(run)
            show_run(run, captions, numbers["captions"])
            show_closing(run, captions, ASKED)
        broken = any_failed(run, numbers)
        found = any_memorized(run, numbers)
    if broken or (showing.fail_on_memorized and found):
        raise typer.Exit(FAILED)
