"""The steps between a command's arguments and the API: calibrations, plans, runs, and what the demo brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from findnemo.cli._common import (
    ALONE,
    Crew,
    Source,
    at_work,
    bar,
    plain,
    print_json,
    read_table,
    say,
    stdout,
    stoppable,
    stream_table,
    tell_repeats,
    warn,
    warn_long_captions,
)
from findnemo.errors import FAILED, InputError, MismatchError
from findnemo.files.secrets import hidden


def calibrate_to(
    pool: Any,
    captions: list[str],
    settings: Any,
    fpr: float | None,
    precision: float,
    out: Path,
    quiet: bool,
    confidence: float | None = None,
) -> Any:
    """Calibrate and save to `out`; what is done is kept there meanwhile."""
    import torch

    from findnemo import calibration as api
    from findnemo.runs import calibrate_with

    api.threshold(
        torch.zeros(len(captions)), fpr, confidence
    )  # too few captions: say so before the work, not after
    with stoppable() as stop, bar(quiet) as update:
        done = iter(range(1, len(captions) + 1))
        update("calibrate", 0, len(captions))
        made = calibrate_with(
            pool,
            captions,
            fpr=fpr,
            precision=precision or None,
            settings=settings,
            progress=lambda prompt: update("calibrate", next(done), len(captions)),
            checkpoint=out / "partial.safetensors",
            confidence=confidence,
            stop=stop,
            out=out,
        )
    return made


def stages_with_calibration(
    model: Source,
    prompts: str,
    calibration: Path,
    out: Path,
    stages: tuple[str, ...],
    limit: int | None,
    column: str | None,
    device: str | None,
    dtype: str | None,
    compile: bool,
    fail_on_memorized: bool,
    json: bool,
    quiet: bool,
    search: str = "trajectory",
    scope: str = "auto",
    screen: bool = False,
    fdr: float | None = None,
    consensus: int = 1,
    crew: Crew = ALONE,
    shard: str | None = None,
    max_impact: float | None = None,
    unrelated: str | None = None,
) -> None:
    from findnemo.calibration import Calibration

    check_level(fdr)
    part = shard_of(shard)

    table, made = stream_table(prompts, column, limit, quiet), Calibration.load(calibration)
    plan = replace(
        make_plan(model, search, 4, None, None, made.settings.seed),
        consensus=consensus,
        scope=checked_scope(scope),
    )
    plan = gentle(plan, model, max_impact, unrelated, column, quiet)
    plan = with_list(with_screen(plan, screen, made, quiet), fdr, made)
    with at_work(model, crew, device, dtype, quiet, compile) as pool:
        run_stages(pool, table, made, out, stages, plan, fail_on_memorized, json, quiet, shard=part)


def make_plan(
    model: Source,
    search: str,
    images: int,
    steps: int | None,
    guidance: float | None,
    seed: int,
    sampler: str | None = None,
) -> Any:
    from findnemo import demo
    from findnemo.images import ImageSettings
    from findnemo.localization import SEARCHES
    from findnemo.runs import Plan

    if search not in SEARCHES:
        raise InputError(f"search {search!r} is not known: use one of {', '.join(SEARCHES)}")
    own = demo.usual(str(model.place))
    settings = ImageSettings(
        steps or own.steps, own.guidance if guidance is None else guidance, seed, sampler
    )
    return Plan(search=search, images=images, image_settings=settings)


def checked_scope(scope: str) -> str:
    """Raises InputError for a scope that is none."""
    from findnemo.models import SCOPES

    if scope not in ("auto", *SCOPES):
        raise InputError(f"scope {scope!r:.40} is not known: use one of auto, {', '.join(SCOPES)}")
    return scope


def plan_of(settings: dict[str, Any]) -> Any:
    """The plan of a run from the settings that it keeps."""
    from findnemo.detection import Screen
    from findnemo.images import ImageSettings
    from findnemo.runs import Plan

    return Plan(
        settings["search"],
        Screen.from_json(settings["screen"]) if settings.get("screen") else None,
        settings["images"],
        ImageSettings.from_json(settings["image_settings"]),
        settings["judges"],
        fdr=settings.get("fdr"),
        consensus=settings.get("consensus", 1),
        max_impact=settings.get("max_impact"),
        unrelated=tuple(settings.get("unrelated", ())),
        scope=settings.get("scope", "auto"),
    )


def shard_of(text: str | None) -> Any:
    from findnemo.runs import Shard

    return None if text is None else Shard.of(text)


def refuse_shard(run: Path) -> None:
    """Raises InputError for a part of a run, where the whole is needed."""
    from findnemo.runs import Run

    with Run.open(run) as part:
        if "shard" in part.meta("settings"):
            raise InputError(
                f"{run} is a shard of a run: join all of them with `findnemo merge` first"
            )


BYSTANDERS = 16  # captions on which the impact of a set is measured


def gentle(
    plan: Any,
    model: Source,
    max_impact: float | None,
    unrelated: str | None,
    column: str | None,
    quiet: bool,
    holdout: Any = None,
) -> Any:
    """The plan with a largest impact, if wanted, and the captions that it is measured on: those of a file, the hold-out captions given in
    the same command, or the demo's own.

    Not captions of the run itself: which of them are memorized is not known yet, and its quality is checked on them afterwards.
    """
    from findnemo import demo
    from findnemo.localization import check_impact

    check_impact(max_impact)
    if max_impact is None:
        if unrelated is not None:
            raise InputError("--unrelated goes with --max-impact: give both, or neither")
        return plan
    if plan.consensus > 1:
        raise InputError(
            "a consensus has no choice among sets: give --consensus or --max-impact, not both"
        )
    if unrelated is not None:
        captions = [p.text for p in read_table(unrelated, column, None, quiet)]
    elif model.place in demo.MODELS:
        captions = list(demo.unrelated()[-BYSTANDERS:])
    elif holdout is not None:
        captions = [p.text for p in holdout]
    else:
        raise InputError(
            "--max-impact is measured on captions that are not memorized: give --unrelated FILE"
        )
    return replace(plan, max_impact=max_impact, unrelated=tuple(captions[:BYSTANDERS]))


@contextmanager
def opened(
    run: Path,
    model: Source,
    device: str | None,
    dtype: str | None,
    quiet: bool,
    trust: bool = False,
) -> Iterator[Any]:
    """A run with its model, ready for more work, as `Work`. `model`: where it is, if no longer where the run found it."""
    with opened_with(run, model, ALONE, device, dtype, quiet, trust) as (work, _):
        yield work


@contextmanager
def opened_with(
    run: Path,
    model: Source,
    crew: Crew,
    device: str | None,
    dtype: str | None,
    quiet: bool,
    trust: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """The same with the pool of workers that have the model."""
    from findnemo.calibration import Calibration
    from findnemo.runs import Run, Work, settings_of, start

    with Run.open(run) as old:
        settings, source = settings_of(old), model.of_run(old, trust)
    made, plan = Calibration.load(run / "calibration"), plan_of(settings)
    with (
        at_work(source, crew, device, dtype or settings["dtype"], quiet) as pool,
        start(run, pool.model, made, plan, shard_of(settings.get("shard"))) as again,
    ):
        work = Work(again, pool.model, made, plan, **extras(pool.model, again, plan))
        yield work, pool
        tell_missing(work.original)


def with_screen(plan: Any, wanted: bool, calibration: Any, quiet: bool) -> Any:
    """The plan with a screen in its first stage, if wanted, and a word about what it costs and saves."""
    from findnemo.detection import screen

    if not wanted:
        return plan
    made = screen(calibration)
    say(
        f"screen: captions under {made.below:.3f} after {made.samples} seeds are set aside; that keeps {made.recall:.1%} of the "
        f"{made.positives} hold-out captions that reach tau and spares {made.saved:.0%} of all the remaining seeds",
        quiet,
    )
    return replace(plan, screen=made)


def check_level(fdr: float | None) -> None:
    if fdr is not None and not 0 < fdr < 1:
        raise InputError(f"--fdr {fdr} is not a rate between 0 and 1")


def with_list(plan: Any, fdr: float | None, calibration: Any) -> Any:
    """The plan with a list at a false discovery rate, if wanted."""
    if fdr is not None and not len(calibration.trajectories):
        raise InputError(
            "this calibration has no hold-out scores, so no p-values for --fdr: make one with `findnemo calibrate --prompts`"
        )
    return replace(plan, fdr=fdr)


def tell_least(captions: int, fdr: float | None, calibration: Any, quiet: bool) -> None:
    """A word where the hold-out captions are few for a list of so many captions."""
    from findnemo.stats.rates import holdout_needed, least_listed

    scored = len(calibration.trajectories)
    if fdr is not None and (least := least_listed(captions, fdr, scored)) > 1:
        say(
            f"list: with {scored} hold-out captions no p-value is under 1/{scored + 1}, so that a list of {captions} captions holds {least} or "
            f"more of them, or none; for a single one it takes {holdout_needed(captions, fdr)} hold-out captions",
            quiet,
        )


def run_stages(
    pool: Any,
    table: Any,
    calibration: Any,
    out: Path,
    stages: tuple[str, ...],
    plan: Any,
    fail: bool,
    json: bool,
    quiet: bool,
    folder: Path | None = None,
    report: bool = False,
    shard: Any = None,
    wait: bool = False,
) -> None:
    """Run the stages over a table, all captions of the run where it is None, and show what came of it."""
    from findnemo.cli._report import write_report
    from findnemo.cli._show import show_run
    from findnemo.passes.deltas import group_size
    from findnemo.runs import (
        ASKED,
        Work,
        answer,
        ask_all,
        counts,
        enter,
        start,
        summary,
        told,
        write_results,
    )
    from findnemo.runs.overview import layers_shown
    from findnemo.runs.trust import vouch

    model = pool.model
    with start(out, model, calibration, plan, shard, wait) as run:
        if folder is not None:
            run.set_meta("folder", str(folder))
            vouch(run)
        if table is None:
            ask_all(run)
        else:
            entered = enter(run, table, shard, group_size(model), table.most)
            tell_repeats(table, entered, quiet)
            tell_least(entered.captions, plan.fdr, calibration, quiet)
        work = Work(run, model, calibration, plan, **extras(model, run, plan, table or ()))
        tell_long_captions(work, table)
        with stoppable() as stop:
            with bar(quiet) as update:
                answer(work, stages, update, pool, stop)
            tell_missing(work.original)
            csv_path, _ = write_results(run)
        numbers = counts(run, ASKED)
        if json:
            print_json(summary(run))
        elif not quiet:
            shown = told(run)
            show_run(
                run, list(layers_shown(run, shown, model.widths())), shown, numbers["captions"]
            )
            sheets = f", images in {run.path / 'sheets'}" if (run.path / "sheets").is_dir() else ""
            stdout.print(plain(f"results in {csv_path}{sheets}"), soft_wrap=True)
        if report:
            write_report(run, quiet=quiet or json)
        failed = numbers["failed"] or (run.meta("quality") or {}).get("failed")
    if failed or (fail and numbers["memorized"]):
        raise typer.Exit(FAILED)


def check_track(track: str | None) -> None:
    """Refuse a tracker that is not known or not installed, before the work."""
    from findnemo.runs.track import check_tracker

    if track is not None:
        check_tracker(track.partition("=")[0])


@contextmanager
def tracked(out: Path, track: str | None, quiet: bool) -> Iterator[None]:
    """Log a run to a tracker once the work in the context has ended, also where its exit status is not 0."""
    ended: typer.Exit | None = None
    try:
        yield
    except typer.Exit as stop:
        ended = stop
    if track is not None:
        _log_run(out, track, quiet)
    if ended is not None:
        raise ended


def _log_run(out: Path, track: str, quiet: bool) -> None:
    from findnemo.runs import Run
    from findnemo.runs.track import track as api

    name, _, folder = track.partition("=")
    with Run.open(out) as run:
        api(run, name, Path(folder) if folder else None)
    say(f"logged to {name}", quiet)


def extras(model: Any, run: Any, plan: Any, table: Any = ()) -> dict[str, Any]:
    """What finished images are judged with, and where their originals come from, as options of `Work`.

    The demo model brings its descriptor, its CLIP and its training images; others have what the plan names, and the images that the table of
    captions names, by path or URL.
    """
    from findnemo import demo
    from findnemo.files.originals import for_run
    from findnemo.metrics import Alignment, Descriptor, Judges

    if model.source in demo.MODELS and not plan.judges:
        return {
            "judges": demo.judges(),
            "original": lambda caption: demo.training_image(caption.text, model.source),
        }
    references = [
        p.image for p in table if p.image and hidden(p.image) != p.image
    ]  # the run keeps those without their secrets
    file, clip = plan.judges.get("descriptor"), plan.judges.get("clip")
    judges = Judges(Descriptor(file) if file else None, Alignment(clip) if clip else None)
    known = {"descriptor": judges.descriptor, "clip": judges.alignment}
    run.set_meta(
        "preprocessing",
        {name: judge.preprocessing for name, judge in known.items() if judge is not None},
    )
    return {
        "judges": judges,
        "original": for_run(run.path, run.meta("folder") or ".", references=references).of_caption,
    }


def tell_long_captions(work: Any, table: Any) -> None:
    """Name the captions of a table, or of the run where it is None, that the model or its judge does not read to their end."""
    judge = work.judges.alignment
    readers = [] if judge is None else [judge.reader]
    captions, most = (work.run.captions(), None) if table is None else (table, table.most)
    warn_long_captions(work.model, captions, most, readers=readers)
    if judge is not None:
        judge.told = work.model.told


def tell_missing(original: Any) -> None:
    """Warn of the original images that could not be had, with the reason."""
    failures = getattr(getattr(original, "__self__", None), "failures", {})
    for reference, reason in list(failures.items())[:5]:
        warn(f"original image {reference}: {reason}")
    if len(failures) > 5:
        warn(
            f"{len(failures) - 5} more original images could not be had: see originals/failures.jsonl in the run directory"
        )


def refuse_other(calibration: Any, asked: dict[str, Any]) -> None:
    """A calibration brings its variant, seed and rate: asking for others beside it would silently do nothing."""
    has = calibration.settings.to_json() | {"fpr": calibration.fpr}
    for name, value in asked.items():
        if value not in (None, has[name]):
            raise MismatchError(
                f"the calibration was made with {name} {has[name]}, not {value}: leave --{name} out, or calibrate again"
            )


def own_calibration(
    pool: Any,
    captions: list[str],
    settings: Any,
    fpr: float | None,
    precision: float,
    out: Path,
    quiet: bool,
    wait: bool = False,
) -> Any:
    """The run's own calibration: made once, then read from the run directory."""
    from findnemo.calibration import Calibration, prompts_digest
    from findnemo.files.writing import storing, sweep
    from findnemo.runs import acquire, refuse_foreign

    folder = out / "calibration"
    if not (folder / "calibration.json").exists():
        refuse_foreign(out)
        with storing(out):
            out.mkdir(parents=True, exist_ok=True)
        with acquire(out, wait):
            sweep(out)
            if not (
                folder / "calibration.json"
            ).exists():  # another process may have made it meanwhile
                calibrate_to(pool, captions, settings, fpr, precision, folder, quiet)
    made = Calibration.load(folder)
    made.check(pool.model, settings)
    same = made.prompts == prompts_digest(captions)
    if made.fpr != fpr or not same:
        others = " others" if not same and made.count == len(captions) else ""
        raise InputError(
            f"{out} was calibrated on {made.count} captions with fpr {made.fpr}, now {len(captions)}{others} with {fpr}: "
            "give another --out"
        )
    return made


def demo_table(model: Source, limit: int | None, option: str) -> Any:
    from findnemo import demo
    from findnemo.prompts import Prompt, PromptTable

    if model.place not in demo.MODELS:
        raise InputError(f"give {option} FILE: only 'demo' brings its own captions")
    others = [
        Prompt(text, row)
        for row, text in enumerate(demo.unrelated()[:24], len(demo.memorized(model.place)) + 1)
    ]
    return PromptTable(model.place, (*demo.memorized(model.place), *others)).limit(limit)


def demo_holdout(model: Source) -> Any:
    from findnemo import demo
    from findnemo.prompts import read_prompts

    if model.place not in demo.MODELS:
        raise InputError(
            "give --holdout FILE (captions that are not memorized) or --calibration DIR: only 'demo' brings its own"
        )
    return read_prompts(demo.holdout()[:100])
