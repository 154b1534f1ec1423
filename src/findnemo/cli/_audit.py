"""The commands of the path: calibrate, detect, localize, audit."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from findnemo.cli._common import (
    FailOpt,
    JsonOpt,
    ModelArg,
    OutOpt,
    PromptsOpt,
    QuietOpt,
    listening,
    plain,
    print_json,
    stdout,
)
from findnemo.cli._options import grouped
from findnemo.errors import FAILED, InputError
from findnemo.runtime.plugins import also
from findnemo.tasks.options import (
    Captions,
    Detecting,
    FineTune,
    Localizing,
    Output,
    Pictures,
    Source,
    Workers,
)

if TYPE_CHECKING:
    from findnemo.calibration import Calibration
    from findnemo.runs import Run


@grouped(
    source=("trust",),
    captions=("shard",),
    detecting=("holdout", "calibration", "fdr", "miss", "budget", "like"),
)
def calibrate(
    model: ModelArg,
    out: OutOpt,
    prompts: Annotated[
        str | None, typer.Option("--prompts", "-p", help="Hold-out captions (not memorized).")
    ] = None,
    captions: Captions = Captions(),
    detecting: Detecting = Detecting(),
    source: Source = Source(),
    workers: Workers = Workers(),
    import_statistics: Annotated[
        Path | None, typer.Option(help="Import published activation statistics (.pt) instead.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="Threshold of the imported statistics (0.428).")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another calibration in --out.")
    ] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
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

    if (prompts is None) == (import_statistics is None):
        raise InputError("give either --prompts FILE or --import-statistics FILE")
    place = replace(source, place=model)
    with listening(quiet) as listener:
        if import_statistics is None:
            table = replace(captions, source=prompts)
            found = tasks.calibrate(place, table, out, detecting, workers, listener, force)
        else:
            threshold = PUBLISHED_TAU if tau is None else tau
            found = tasks.calibrate_published(
                place, import_statistics, out, threshold, detecting.seed or 0, listener, force
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
    if json:
        print_json(about)
    elif not quiet:
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


@grouped(detecting=("confidence",))
def detect(
    model: ModelArg,
    out: OutOpt,
    prompts: PromptsOpt = None,
    captions: Captions = Captions(),
    detecting: Detecting = Detecting(),
    source: Source = Source(),
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
    fail_on_memorized: FailOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
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

    place = replace(source, place=model)
    table = replace(captions, source=prompts)
    if detector is not None:
        refuse_beside(
            {
                "--calibration": detecting.calibration,
                "--fdr": detecting.fdr,
                "--miss": detecting.miss,
                "--budget": detecting.budget,
                "--like": detecting.like,
                "--fail-on-memorized": fail_on_memorized,
                "--shard": captions.shard,
            },
            "does nothing with --detector, whose thresholds come from hold-out captions: leave one"
            " of them out",
        )
        holdout = detecting.holdout
        with listening(quiet) as listener:
            found = tasks.compare_detectors(
                place, detector, table, out, holdout, pictures, workers, listener
            )
        show_detectors(found, json, quiet)
        return
    refuse_beside({"--pictures": pictures}, "goes with --detector: name one, or leave it out")
    with listening(quiet) as listener:
        run = tasks.detect(place, table, out, detecting, workers, listener)
    show_result(run, fail_on_memorized, json, quiet)


@grouped(detecting=("confidence",))
def localize(
    model: ModelArg,
    out: OutOpt,
    prompts: PromptsOpt = None,
    captions: Captions = Captions(),
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
    source: Source = Source(),
    workers: Workers = Workers(),
    fail_on_memorized: FailOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
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

    place = replace(source, place=model)
    table = replace(captions, source=prompts)
    with listening(quiet) as listener:
        run = tasks.localize(place, table, out, detecting, localizing, workers, listener)
    show_result(run, fail_on_memorized, json, quiet)


@grouped(detecting=("confidence",))
def audit(
    model: ModelArg,
    out: OutOpt,
    prompts: PromptsOpt = None,
    captions: Captions = Captions(),
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
    pictures: Pictures = Pictures(),
    source: Source = Source(),
    tuned: FineTune = FineTune(),
    workers: Workers = Workers(),
    output: Output = Output(),
    fail_on_memorized: FailOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
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

    place = replace(source, place=model)
    table = audited_of(tuned, replace(captions, source=prompts))
    where = replace(output, path=out)
    with listening(quiet) as listener:
        run = tasks.audit(place, table, where, detecting, localizing, pictures, workers, listener)
    show_result(run, fail_on_memorized, json, quiet)


def audited_of(tuned: FineTune, table: Captions) -> Captions | FineTune:
    """The captions to audit; with training pictures the fine-tune, and further captions, if any.

    Raises InputError for an option that does nothing with, or without, training pictures.
    """
    if tuned.train_images is None:
        for field in fields(FineTune):
            if getattr(tuned, field.name) != field.default:
                raise InputError(f"--{field.name.replace('_', '-')} goes with --train-images DIR")
        return table
    if table.shard is not None:
        raise InputError("--shard does nothing with --train-images: leave one of them out")
    prompts = None if table.source is None else replace(table, limit=None)
    return replace(tuned, prompts=prompts, column=table.column, limit=table.limit)


def show_result(run: Run, fail: bool, json: bool, quiet: bool) -> None:
    """Show the results of the requested captions.

    Ends the command with status 1 if a caption failed. With `fail`, also if a caption is memorized,
    or suspected without a looked-at image; in a fine-tune, if a training picture is copied.
    """
    from findnemo.cli._closing import show_closing
    from findnemo.cli._show import failed, show_run, show_training
    from findnemo.runs import ASKED, counts, summary, told
    from findnemo.runs.tuned import copies_in, training_of

    with run:
        numbers = counts(run, ASKED)
        if json:
            print_json(summary(run))
        elif not quiet:
            show_training(run)
            captions = told(run)
            show_run(run, captions, numbers["captions"])
            show_closing(run, captions, ASKED)
        broken = failed(run, numbers)
        about = training_of(run)
        found = (
            bool(numbers["memorized"] or numbers["unseen"]) if about is None else copies_in(about)
        )
    if broken or (fail and found):
        raise typer.Exit(FAILED)
