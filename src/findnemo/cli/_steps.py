"""The steps between a command's arguments and the API: calibrations, plans, runs, and what the demo brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from findnemo.cli._common import Source, bar, load_model, plain, print_json, read_table, say, stdout, warn, warn_long_captions
from findnemo.errors import InputError, MismatchError


def calibrate_to(
    model: Any, captions: list[str], settings: Any, fpr: float | None, precision: float, out: Path, quiet: bool
) -> Any:
    import torch

    from findnemo import calibration as api

    api.threshold(torch.zeros(len(captions)), fpr)  # too few captions: say so before the work, not after
    with bar(quiet) as update:
        done = iter(range(1, len(captions) + 1))
        update("calibrate", 0, len(captions))
        return api.calibrate(
            model,
            captions,
            fpr=fpr,
            precision=precision or None,
            settings=settings,
            progress=lambda prompt: update("calibrate", next(done), len(captions)),
            checkpoint=out / "partial.safetensors",
        )


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
    search: str = "gradient",
    screen: bool = False,
) -> None:
    from findnemo.calibration import Calibration

    table, made = read_table(prompts, column, limit, quiet), Calibration.load(calibration)
    plan = with_screen(make_plan(model, search, 4, None, None, made.settings.seed), screen, made, quiet)
    loaded = load_model(model, device, dtype, quiet, compile)
    warn_long_captions(loaded, table)
    run_stages(loaded, table, made, out, stages, plan, fail_on_memorized, json, quiet)


def make_plan(model: Source, search: str, images: int, steps: int | None, guidance: float | None, seed: int) -> Any:
    from findnemo import demo
    from findnemo.images import ImageSettings
    from findnemo.localization import SEARCHES
    from findnemo.runs import Plan

    if search not in SEARCHES:
        raise InputError(f"search {search!r} is not known: use one of {', '.join(SEARCHES)}")
    usual = demo.image_settings() if model.place == "demo" else ImageSettings()
    settings = ImageSettings(steps or usual.steps, usual.guidance if guidance is None else guidance, seed)
    return Plan(search=search, images=images, image_settings=settings)


def plan_of(settings: dict[str, Any]) -> Any:
    """The plan of a run from the settings that it keeps."""
    from findnemo.detection import Screen
    from findnemo.images import ImageSettings
    from findnemo.runs import Plan

    return Plan(
        settings["search"],
        Screen.from_json(settings["screen"]) if settings.get("screen") else None,
        settings["images"],
        settings.get("grow", True),
        ImageSettings.from_json(settings["image_settings"]),
        settings["judges"],
    )


@contextmanager
def opened(run: Path, model: Source, device: str | None, dtype: str | None, quiet: bool, trust: bool = False) -> Iterator[Any]:
    """A run with its model, ready for more work, as `Work`. `model`: where it is, if no longer where the run found it."""
    from findnemo.calibration import Calibration
    from findnemo.runs import Run, Work, settings_of, start

    with Run.open(run) as old:
        settings, source = settings_of(old), model.of_run(old, trust)
    loaded = load_model(source, device, dtype or settings["dtype"], quiet)
    made, plan = Calibration.load(run / "calibration"), plan_of(settings)
    with start(run, loaded, made, plan) as again:
        work = Work(again, loaded, made, plan, **extras(loaded, again, plan))
        yield work
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


def run_stages(
    model: Any,
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
) -> None:
    from findnemo.cli._report import write_report
    from findnemo.cli._show import show_run
    from findnemo.runs import Work, audit, start, summary, write_results
    from findnemo.runs.trust import vouch

    with start(out, model, calibration, plan) as run:
        if folder is not None:
            run.set_meta("folder", str(folder))
            vouch(run)
        work = Work(run, model, calibration, plan, **extras(model, run, plan, table))
        with bar(quiet) as update:
            captions = audit(work, table, stages, update)
        tell_missing(work.original)
        csv_path, _ = write_results(run)
        if json:
            print_json(summary(run))
        elif not quiet:
            show_run(run, list(model.value_layers), captions)
            sheets = f", images in {run.path / 'sheets'}" if (run.path / "sheets").is_dir() else ""
            stdout.print(plain(f"results in {csv_path}{sheets}"), soft_wrap=True)
        if report:
            write_report(run, quiet=quiet or json)
        failed = any(c.failed for c in captions) or (run.meta("quality") or {}).get("failed")
        memorized = any(c.results.get("detect", {}).get("memorized") for c in captions)
    if failed or (fail and memorized):
        raise typer.Exit(1)


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
    from findnemo.metrics import Alignment, Descriptor
    from findnemo.originals import for_run
    from findnemo.verification import Judges

    if model.source == "demo" and not plan.judges:
        return {"judges": demo.judges(), "original": lambda caption: demo.training_image(caption.text)}
    references = [prompt.image for prompt in table if prompt.image]
    file, clip = plan.judges.get("descriptor"), plan.judges.get("clip")
    judges = Judges(Descriptor(file) if file else None, Alignment(clip) if clip else None)
    known = {"descriptor": judges.descriptor, "clip": judges.alignment}
    run.set_meta("preprocessing", {name: judge.preprocessing for name, judge in known.items() if judge is not None})
    return {"judges": judges, "original": for_run(run.path, run.meta("folder") or ".", references=references).of_caption}


def tell_missing(original: Any) -> None:
    """Warn of the original images that could not be had, with the reason."""
    failures = getattr(getattr(original, "__self__", None), "failures", {})
    for reference, reason in list(failures.items())[:5]:
        warn(f"original image {reference}: {reason}")
    if len(failures) > 5:
        warn(f"{len(failures) - 5} more original images could not be had: see originals/failures.jsonl in the run directory")


def refuse_other(calibration: Any, asked: dict[str, Any]) -> None:
    """A calibration brings its variant, seed and rate: asking for others beside it would silently do nothing."""
    has = calibration.settings.to_json() | {"fpr": calibration.fpr}
    for name, value in asked.items():
        if value not in (None, has[name]):
            raise MismatchError(
                f"the calibration was made with {name} {has[name]}, not {value}: leave --{name} out, or calibrate again"
            )


def own_calibration(
    model: Any, captions: list[str], settings: Any, fpr: float | None, precision: float, out: Path, quiet: bool
) -> Any:
    """The run's own calibration: made once, then read from the run directory."""
    from findnemo.calibration import Calibration, prompts_digest
    from findnemo.runs import acquire, refuse_foreign

    folder = out / "calibration"
    if not (folder / "calibration.json").exists():
        refuse_foreign(out)
        out.mkdir(parents=True, exist_ok=True)
        with acquire(out):
            calibrate_to(model, captions, settings, fpr, precision, folder, quiet).save(folder)
    made = Calibration.load(folder)
    made.check(model, settings)
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

    if model.place != "demo":
        raise InputError(f"give {option} FILE: only 'demo' brings its own captions")
    others = [Prompt(text, row) for row, text in enumerate(demo.unrelated()[:24], len(demo.memorized()) + 1)]
    return PromptTable("demo", (*demo.memorized(), *others)).limit(limit)


def demo_holdout(model: Source) -> Any:
    from findnemo import demo
    from findnemo.prompts import read_prompts

    if model.place != "demo":
        raise InputError("give --holdout FILE (captions that are not memorized) or --calibration DIR: only 'demo' brings its own")
    return read_prompts(demo.holdout()[:100])
