"""The commands of the path: calibrate, detect, localize, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._common import (
    ALONE,
    CalibrationOpt,
    ClipOpt,
    ColumnOpt,
    CompileOpt,
    Crew,
    DescriptorOpt,
    DeviceOpt,
    DtypeOpt,
    FailOpt,
    JsonOpt,
    LimitOpt,
    OutOpt,
    PromptsOpt,
    QuietOpt,
    SeedOpt,
    ShardOpt,
    Source,
    TrackOpt,
    VariantOpt,
    at_work,
    load_model,
    opens_model,
    plain,
    print_json,
    read_table,
    stdout,
    stream_table,
    takes_workers,
    warn_long_captions,
)
from findnemo.cli._steps import (
    calibrate_to,
    check_level,
    check_track,
    checked_scope,
    demo_holdout,
    demo_table,
    gentle,
    make_plan,
    own_calibration,
    refuse_other,
    run_stages,
    shard_of,
    stages_with_calibration,
    tracked,
    with_list,
    with_screen,
)
from findnemo.errors import InputError

FprOpt = Annotated[
    float | None,
    typer.Option(
        help="Threshold that at most this share of ordinary captions reaches, instead of mean + 1 std."
    ),
]
FdrOpt = Annotated[
    float | None,
    typer.Option(
        help="List captions so that at most this share of the list is ordinary (q <= this); takes all seeds of every caption."
    ),
]
ConsensusOpt = Annotated[
    int,
    typer.Option(
        help="Search so many times, on other seeds each, and keep the neurons that most searches find.",
        min=1,
    ),
]
SearchOpt = Annotated[
    str,
    typer.Option(
        help="How neurons are sought: 'trajectory' until pictures are no copies; 'gradient' or 'listing' (Algorithms 3 and 4) by one step."
    ),
]
ScopeOpt = Annotated[
    str,
    typer.Option(
        help="Where they are sought: the layers of the 'paper', 'all' value layers, or 'auto', by a scan of the model."
    ),
]
ImpactOpt = Annotated[
    float | None,
    typer.Option(
        "--max-impact",
        help="Among sets that remove a memory prefer one that changes unrelated captions by no more (0 to 2).",
    ),
]
UnrelatedOpt = Annotated[
    str | None,
    typer.Option(
        "--unrelated",
        help="Captions that are not memorized, of which --max-impact takes 16; 'demo' brings its own.",
    ),
]
PrecisionOpt = Annotated[
    float,
    typer.Option(
        help="Stop scoring hold-out captions once tau is known this well (95 %); 0: score all."
    ),
]
ScreenOpt = Annotated[
    bool,
    typer.Option(
        "--screen",
        help="Set captions aside that are far below tau after four seeds; says how many it would miss.",
    ),
]
ImagesOpt = Annotated[
    int,
    typer.Option(help="Finished images before and after per memorized caption; 0 for none.", min=0),
]
StepsOpt = Annotated[
    int | None,
    typer.Option("--image-steps", help="Denoising steps of finished images (50; demo 15).", min=1),
]
GuidanceOpt = Annotated[
    float | None, typer.Option(help="Guidance scale of finished images (7; demo 2).")
]
SamplerOpt = Annotated[
    str | None,
    typer.Option(
        help="Sampler of finished images: by default the checkpoint's; 'ddim' is the paper's. The run records it."
    ),
]


@opens_model
@takes_workers
def calibrate(
    model: Source,
    out: OutOpt,
    prompts: Annotated[
        str | None, typer.Option("--prompts", "-p", help="Hold-out captions (not memorized).")
    ] = None,
    limit: LimitOpt = None,
    fpr: FprOpt = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="With --fpr: keep the rate in this share of calibrations, not only on average over them."
        ),
    ] = None,
    precision: PrecisionOpt = 0.002,
    variant: VariantOpt = "findnemo",
    import_statistics: Annotated[
        Path | None, typer.Option(help="Import published activation statistics (.pt) instead.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option(help="Threshold that goes with imported statistics (0.428).")
    ] = None,
    column: ColumnOpt = None,
    seed: SeedOpt = 0,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    compile: CompileOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    crew: Crew = ALONE,
) -> None:
    """Measure activation statistics and the threshold tau on hold-out captions.

    Example: `findnemo calibrate CompVis/stable-diffusion-v1-4 --prompts laion.csv --limit 1000 --out calibration`

    Example: `findnemo calibrate model.safetensors --config stable-diffusion-v1-5/stable-diffusion-v1-5 --prompts holdout.txt --fpr 0.01 --out calibration`

    Example: `findnemo calibrate MODEL --prompts holdout.txt --fpr 0.01 --confidence 0.95 --out calibration`

    Example: `findnemo calibrate MODEL --variant released --import-statistics statistics.pt --tau 0.428 --out calibration`
    """
    from findnemo import calibration as api
    from findnemo.settings import settings_for

    if (prompts is None) == (import_statistics is None):
        raise InputError("give either --prompts FILE or --import-statistics FILE")
    if out.is_file():
        raise InputError(f"{out} is a file: give a directory")
    if prompts is not None:
        table = read_table(prompts, column, limit, quiet)
        with at_work(model, crew, device, dtype, quiet, compile) as pool:
            warn_long_captions(pool.model, table)
            captions, settings = [p.text for p in table], settings_for(variant, seed)
            made = calibrate_to(pool, captions, settings, fpr, precision, out, quiet, confidence)
    else:
        assert import_statistics is not None
        loaded = load_model(model, device, dtype, quiet, compile)
        made = api.import_statistics(
            import_statistics, loaded, api.PUBLISHED_TAU if tau is None else tau, seed
        )
        made.save(out)
    about = {
        "tau": made.tau,
        "prompts": made.count,
        "scored": len(made.trajectories),
        "variant": made.settings.variant,
        "fpr": made.fpr,
        "calibration": str(out),
        **(
            {"confidence": made.confidence, "rate_under": made.rate_bound()}
            if made.fpr is not None
            else {}
        ),
    }
    if json:
        print_json(about)
    elif not quiet:
        stdout.print(f"{_how_well(made)}; calibration written to {plain(str(out))}", soft_wrap=True)


def _how_well(made: Any) -> str:
    """tau, how well it is known, and whether scoring stopped early."""
    from findnemo.calibration import tau_interval

    scored = len(made.trajectories)
    if not scored:
        return f"tau = {made.tau:.4f} as given, with imported statistics"
    text = f"tau = {made.tau:.4f} from {scored} captions"
    if made.fpr is None:
        low, high = tau_interval(made.scores)
        text += f" (95 % interval {low:.4f} to {high:.4f})"
    else:
        text += f": {_promise(made)}"
    return text + (
        f", precise enough; activation statistics from all {made.count}"
        if scored < made.count
        else ""
    )


def _promise(made: Any) -> str:
    """What a threshold for a rate promises of captions like the hold-out captions."""
    scored, bound = len(made.trajectories), made.rate_bound()
    if made.confidence is None:
        return (
            f"at most {_percent(made.fpr)} of ordinary captions reach it on average over calibrations; with these {scored} captions the "
            f"realised rate is under {_percent(bound)} with 95 % confidence"
        )
    return f"at most {_percent(made.fpr)} of ordinary captions reach it, with {_percent(made.confidence)} confidence"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


@opens_model
@takes_workers
def detect(
    model: Source,
    out: OutOpt,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", "-p", help="Captions; with --detector, 'demo' brings its own."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            "-c",
            help="A directory made by `findnemo calibrate`; not with --detector.",
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Score and compare detectors instead: agreement, ssim, magnitude, entropy-d, entropy-e, one-step, edges, bright-ending."
        ),
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(
            help="Hold-out captions for the detectors' thresholds; 'demo' brings its own."
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="With --detector: saliency and mask pictures of the captions with a type.",
        ),
    ] = False,
    screen: ScreenOpt = False,
    fdr: FdrOpt = None,
    limit: LimitOpt = None,
    column: ColumnOpt = None,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    compile: CompileOpt = False,
    shard: ShardOpt = None,
    fail_on_memorized: FailOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    crew: Crew = ALONE,
) -> None:
    """Say which captions are memorized, or compare detectors on captions of which that is known.

    Example: `findnemo detect MODEL --prompts captions.csv --calibration calibration --out run`

    Example: `findnemo detect MODEL --prompts captions.csv --calibration calibration --screen --fail-on-memorized --out run`

    Example: `findnemo detect MODEL --prompts captions.csv --calibration calibration --fdr 0.1 --out run`

    Example: `findnemo detect demo --detector ssim,magnitude,edges --out run`
    """
    from findnemo.cli._detectors import detect_with, refuse_beside

    if detector is not None:
        asked: dict[str, Any] = {
            "--calibration": calibration,
            "--screen": screen,
            "--fdr": fdr,
            "--fail-on-memorized": fail_on_memorized,
        }
        asked |= {"--shard": shard}
        refuse_beside(
            asked,
            "does nothing with --detector, whose thresholds come from hold-out captions: leave one of them out",
        )
        detect_with(
            model,
            prompts,
            holdout,
            detector,
            out,
            limit,
            column,
            device,
            dtype,
            compile,
            pictures,
            json,
            quiet,
            crew,
        )
        return
    refuse_beside(
        {"--holdout": holdout, "--pictures": pictures},
        "goes with --detector: name one, or leave it out",
    )
    if prompts is None:
        raise InputError("give --prompts FILE")
    if calibration is None:
        raise InputError(
            "give --calibration DIR, made by `findnemo calibrate`, or --detector NAME with hold-out captions"
        )
    stages_with_calibration(
        model,
        prompts,
        calibration,
        out,
        ("detect",),
        limit,
        column,
        device,
        dtype,
        compile,
        fail_on_memorized,
        json,
        quiet,
        screen=screen,
        fdr=fdr,
        crew=crew,
        shard=shard,
    )


@opens_model
@takes_workers
def localize(
    model: Source,
    prompts: PromptsOpt,
    calibration: CalibrationOpt,
    out: OutOpt,
    search: SearchOpt = "trajectory",
    scope: ScopeOpt = "auto",
    consensus: ConsensusOpt = 1,
    max_impact: ImpactOpt = None,
    unrelated: UnrelatedOpt = None,
    limit: LimitOpt = None,
    column: ColumnOpt = None,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    compile: CompileOpt = False,
    shard: ShardOpt = None,
    fail_on_memorized: FailOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    crew: Crew = ALONE,
) -> None:
    """Find the neurons that hold the memorized captions.

    Example: `findnemo localize demo --prompts findnemo-demo/results.csv --calibration findnemo-demo/calibration --out run`

    Example: `findnemo localize MODEL --prompts captions.csv --calibration calibration --search listing --limit 20 --out run`

    Example: `findnemo localize MODEL --prompts captions.csv --calibration calibration --search gradient --consensus 5 --out run`

    Example: `findnemo localize MODEL --prompts captions.csv --calibration calibration --max-impact 0.02 --unrelated ordinary.txt --out run`
    """
    stages = ("detect", "localize")
    also: dict[str, Any] = {
        "search": search,
        "scope": scope,
        "consensus": consensus,
        "max_impact": max_impact,
        "unrelated": unrelated,
    }
    also |= {"crew": crew, "shard": shard}
    stages_with_calibration(
        model,
        prompts,
        calibration,
        out,
        stages,
        limit,
        column,
        device,
        dtype,
        compile,
        fail_on_memorized,
        json,
        quiet,
        **also,
    )


@opens_model
@takes_workers
def audit(
    model: Source,
    out: OutOpt,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", "-p", help="Captions to audit; 'demo' brings its own."),
    ] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Hold-out captions to calibrate on; 'demo' brings its own.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", "-c", help="A calibration instead of hold-out captions."),
    ] = None,
    limit: LimitOpt = None,
    search: SearchOpt = "trajectory",
    scope: ScopeOpt = "auto",
    consensus: ConsensusOpt = 1,
    max_impact: ImpactOpt = None,
    unrelated: UnrelatedOpt = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="Detection: 'findnemo', 'paper' or 'released'. Default: 'findnemo', with --screen or a search by one step 'paper'; a calibration brings its own."
        ),
    ] = None,
    fpr: FprOpt = None,
    precision: PrecisionOpt = 0.002,
    screen: ScreenOpt = False,
    fdr: FdrOpt = None,
    images: ImagesOpt = 4,
    image_steps: StepsOpt = None,
    guidance: GuidanceOpt = None,
    sampler: SamplerOpt = None,
    descriptor: DescriptorOpt = None,
    clip: ClipOpt = None,
    column: ColumnOpt = None,
    seed: Annotated[
        int | None, typer.Option(help="Base seed of all samples (0); a calibration brings its own.")
    ] = None,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    compile: CompileOpt = False,
    shard: ShardOpt = None,
    report: Annotated[bool, typer.Option(help="Write RUN/report.html at the end.")] = True,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait for another process that writes to --out, instead of refusing."
        ),
    ] = False,
    fail_on_memorized: FailOpt = False,
    track: TrackOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    crew: Crew = ALONE,
) -> None:
    """The whole path: calibrate, detect, localize, verify, report. Run it again and it goes on where it stopped.

    Example: `findnemo audit CompVis/stable-diffusion-v1-4 --prompts captions.csv --holdout laion.csv --out run`

    Example: `findnemo audit MODEL --prompts captions.csv --calibration calibration --limit 20 --out run`

    Example: `findnemo audit model.safetensors --config stable-diffusion-v1-5/stable-diffusion-v1-5 --prompts captions.csv --holdout laion.csv --descriptor sscd.pt --clip CLIP --out run`

    Example: `findnemo audit MODEL --prompts captions.csv --holdout laion.csv --fpr 0.01 --fdr 0.1 --out run`

    Example: `findnemo audit MODEL --prompts captions.csv --holdout laion.csv --max-impact 0.02 --out run`

    Example: `findnemo audit CompVis/stable-diffusion-v1-4 --prompts captions.csv --holdout laion.csv --sampler ddim --images 10 --out run`

    Example: `findnemo audit demo --track tensorboard --fail-on-memorized --quiet --out run`
    """
    from dataclasses import replace

    from findnemo.calibration import Calibration
    from findnemo.images import check_images
    from findnemo.localization import ONE_STEP
    from findnemo.settings import settings_for

    check_track(track)
    check_level(fdr)
    part = shard_of(shard)
    if part is not None and calibration is None:
        raise InputError(
            "--shard needs --calibration DIR, made once by `findnemo calibrate`: it is what makes the parts comparable"
        )
    if holdout is not None and calibration is not None:
        raise InputError("give --holdout or --calibration, not both")
    table = (
        stream_table(prompts, column, limit, quiet)
        if prompts
        else demo_table(model, limit, "--prompts")
    )
    made = Calibration.load(calibration) if calibration else None
    if made is not None:
        refuse_other(made, {"variant": variant, "seed": seed, "fpr": fpr})
    clean = (
        None
        if made
        else read_table(holdout, column, None, quiet)
        if holdout
        else demo_holdout(model)
    )
    settings = (
        made.settings
        if made
        else settings_for(
            variant or ("paper" if screen or search in ONE_STEP else "findnemo"), seed or 0
        )
    )
    judges = {
        name: str(place)
        for name, place in (("descriptor", descriptor), ("clip", clip))
        if place is not None
    }
    plan = make_plan(model, search, images, image_steps, guidance, settings.seed, sampler)
    plan = replace(plan, judges=judges, consensus=consensus, scope=checked_scope(scope))
    plan = gentle(plan, model, max_impact, unrelated, column, quiet, clean if holdout else None)
    stages, folder = ("detect", "localize", "verify"), Path(prompts or "").absolute().parent
    with tracked(out, track, quiet), at_work(model, crew, device, dtype, quiet, compile) as pool:
        if images:
            check_images(
                pool.model, plan.image_settings
            )  # what does not fit is refused before any work
        if made is None:
            assert clean is not None
            warn_long_captions(pool.model, clean, of="hold-out ")
            made = own_calibration(
                pool, [p.text for p in clean], settings, fpr, precision, out, quiet, wait
            )
        plan = with_list(with_screen(plan, screen, made, quiet), fdr, made)
        run_stages(
            pool,
            table,
            made,
            out,
            stages,
            plan,
            fail_on_memorized,
            json,
            quiet,
            folder,
            report and part is None,
            part,
            wait,
        )
