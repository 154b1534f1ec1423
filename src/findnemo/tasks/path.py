"""The main path of a model: detect, localize, verify, from checked options to a run.

Every task writes one run directory and continues where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from findnemo import report
from findnemo.calibration import MISS, Calibration, ends_early, holdout_for, promised
from findnemo.errors import InputError, MismatchError
from findnemo.images import check_images
from findnemo.localization import ONE_STEP
from findnemo.metrics import Judges
from findnemo.passes import group_size
from findnemo.prompts import PromptTable, repeated
from findnemo.runs import (
    AuditPlan,
    Pool,
    Run,
    Shard,
    Work,
    answer,
    ask_all,
    enter,
    start,
    write_results,
)
from findnemo.runs.discoveries import check_level
from findnemo.runs.judging import judge_anew
from findnemo.runs.ranking import Meter, Ranked
from findnemo.runs.store import kept_settings
from findnemo.runs.track import check_tracker, track
from findnemo.runs.trust import vouch
from findnemo.settings import settings_for
from findnemo.stats.rates import holdout_needed, least_listed
from findnemo.tasks.calibrating import Holdout, given_calibration, own_calibration
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import (
    as_begun,
    beginning_of,
    begun_settings,
    captions_of,
    folder_of,
    gentle,
    holdout_of,
    judged_as_begun,
    judges_of,
    plan_for,
    plan_of,
    shard_of,
    table_of,
    warn_long,
    warn_missing,
    with_discovery_rate,
    with_pictures,
    work_on,
)
from findnemo.tasks.options import Detecting, Localizing, Output, Pictures
from findnemo.tasks.ranking import (
    check_order,
    in_order,
    is_ordered,
    keep_order,
    memories_of,
    refuse_order,
)

PATH = ("detect", "localize", "verify")


# the path -----------------------------------------------------------------------------------------


def output_of(out: str | Path | Output) -> Output:
    """The output options: `out` itself, or options with the run directory `out`.

    Raises InputError for a tracker that is unknown or not installed.
    """
    output = out if isinstance(out, Output) else Output(out)
    if output.track is not None:
        check_tracker(output.track.partition("=")[0])
    return output


@dataclass(frozen=True)
class Request:
    """The arguments of a task of this module."""

    model: Any
    prompts: Any
    output: Output
    stages: Sequence[str]
    detecting: Detecting = Detecting()
    localizing: Localizing = Localizing()
    pictures: Pictures = Pictures()


@dataclass(frozen=True)
class Ready:
    """All that stages need except the model, checked before it is loaded.

    `table`: None for all captions of the run. `calibration`: an existing one, or the input of a new
    one as `detecting` requests. `judges`: those of the plan, if they are open.
    """

    table: Any
    calibration: Calibration | Holdout
    output: Output
    stages: Sequence[str]
    plan: AuditPlan
    part: Shard | None = None
    folder: Path | None = None
    detecting: Detecting = Detecting()
    about: Mapping[str, Any] | None = None
    judges: Judges | None = None


def ready(request: Request, listener: Listener) -> Ready:
    """Check the options and open the tables.

    Raises InputError or MismatchError for options that do not fit together.
    """
    model = request.model
    detecting = request.detecting
    localizing = request.localizing
    given = captions_of(request.prompts)
    check_level(detecting.fdr)
    _refuse_miss(detecting)
    refuse_order(detecting, given.shard)
    if detecting.like is not None:
        memories_of(detecting.like)
        if detecting.holdout is None and detecting.calibration is None:
            detecting = replace(detecting, calibration=Path(detecting.like) / "calibration")
    part = shard_of(given.shard)
    if part is not None and detecting.calibration is None:
        raise InputError(
            "--shard needs --calibration DIR, made once by `findnemo calibrate`: it is what makes"
            " the parts comparable"
        )
    if detecting.holdout is not None and detecting.calibration is not None:
        raise InputError("give --holdout or --calibration, not both")
    out = request.output.path
    pictures = judged_as_begun(request.pictures, out, getattr(model, "trust", False))
    table = table_of(given, model, listener)
    calibration: Calibration | Holdout | None = given_calibration(detecting)
    bystanders = None
    if calibration is None:
        apart = holdout_of(detecting, given.column, model, listener)
        bystanders = apart if detecting.holdout is not None else None
        variant = detecting.variant or ("paper" if localizing.search in ONE_STEP else "findnemo")
        calibration = Holdout(apart, settings_for(variant, detecting.seed or 0))
    plan = plan_for(model, localizing, pictures, calibration.settings.seed)
    plan = gentle(plan, localizing, model, given.column, bystanders, listener)
    plan = as_begun(plan, out, request.pictures)
    # a shipped model's captions lie in no folder: their training images come with the model
    has_folder = given.prompts is not None and "verify" in request.stages
    folder = folder_of(given) if has_folder else None
    return Ready(table, calibration, request.output, request.stages, plan, part, folder, detecting)


def perform(asked: Ready, pool: Pool, listener: Listener) -> Run:
    """Calibrate if necessary, and run the stages. Returns the run, open for reading."""
    calibration = asked.calibration
    if "verify" in asked.stages and asked.plan.images:
        # refuse unfit options before any work
        check_images(pool.model, asked.plan.image_settings)
    if isinstance(calibration, Holdout):
        warn_long(pool.model, calibration.table, listener, of="hold-out ")
        is_rated = asked.plan.training is None
        calibration = own_calibration(
            pool, calibration, asked.detecting, asked.output, listener, is_rated
        )
    plan = with_discovery_rate(asked.plan, asked.detecting, calibration)
    plan = replace(plan, miss=_miss(asked, calibration))
    if plan.training is None:
        _tell_promise(plan.miss, calibration, listener)
    return run_stages(pool, calibration, replace(asked, plan=plan), listener)


def _refuse_miss(detecting: Detecting) -> None:
    """Raises InputError for an invalid share of lost memories, or one that `fdr` forbids."""
    if detecting.miss is None:
        return
    if not 0 <= detecting.miss < 1:
        raise InputError(f"--miss {detecting.miss} is not a share of at least 0 and less than 1")
    if detecting.fdr is not None:
        raise InputError(
            "--miss says how early detection may end, and --fdr takes all seeds of every caption:"
            " leave one of them out"
        )


def _miss(asked: Ready, calibration: Calibration) -> float | None:
    """The share of memories that an early end of detection may lose: the requested one, else the
    run's, else MISS.

    None if all seeds are computed: for a list at a false discovery rate, and if few seeds cannot
    decide.
    """
    wanted = asked.detecting.miss
    if not ends_early(calibration.settings):
        if wanted is not None:
            raise InputError(
                f"--miss does nothing in the variant {calibration.settings.variant!r}, where any two"
                " seeds can decide: leave it out, or take the variant 'findnemo'"
            )
        return None
    if asked.detecting.fdr is not None:
        return None
    if wanted is not None:
        return wanted
    kept = kept_settings(Path(asked.output.path))
    return MISS if kept is None else plan_of(kept).miss


def _tell_promise(miss: float | None, calibration: Calibration, listener: Listener) -> None:
    """Say if the hold-out captions are too few for the share of memories that may be lost."""
    if miss and not promised(calibration.trajectories, miss):
        listener.say(
            "detection ends early only for captions that can no longer reach tau: to end it for"
            f" all that look ordinary takes {holdout_for(miss)} hold-out captions, these are"
            f" {len(calibration.trajectories)}"
        )


def run_stages(pool: Pool, calibration: Calibration, asked: Ready, listener: Listener) -> Run:
    """Run stages with an existing calibration. Returns the run, open for reading.

    Results are written even if the work was stopped; at the end of the path, the report too.
    """
    model = pool.model
    plan = asked.plan
    table = asked.table
    output = asked.output
    detecting = asked.detecting
    order: list[Ranked] | None = None
    if is_ordered(detecting):
        check_order(pool, calibration, detecting)
    # if one cannot be opened, the run does not change
    judges = judges_of(model.source, plan.judges) if asked.judges is None else asked.judges
    run = start(output.path, model, calibration, plan, asked.part, output.wait, listener.say)
    try:
        if asked.about is not None:
            run.set_meta("training", asked.about)
        if asked.folder is not None:
            run.set_meta("folder", str(asked.folder))
            vouch(run)
        if table is not None and is_ordered(detecting):
            found = in_order(run.path, pool, calibration, detecting, table, listener)
            if found is None:  # stopped early
                run.unlock()
                return run
            order, different = found
            table = PromptTable(table.source, tuple(one.prompt for one in order))
        if table is None:
            ask_all(run)
        else:
            entered = enter(run, table, asked.part, group_size(model), table.most)
            for text in repeated(table.source, entered.repeats, entered.some):
                listener.warn(text)
            _tell_least(entered.captions, plan.fdr, calibration, listener)
        work = work_on(run, model, calibration, plan, table or (), judges)
        _warn_long_captions(work, table, listener)
        stages = asked.stages
        judge_anew(work, pool, listener.progress, listener.stop)
        if order is not None:
            meter = Meter(run)
            limit = math.inf if detecting.budget is None else detecting.budget
            answer(
                work, PATH[:1], listener.progress, pool, lambda: listener.stop() or meter() >= limit
            )
            keep_order(run, pool, calibration, detecting, order, different, meter, listener)
            stages = [stage for stage in stages if stage not in PATH[:1]]
        answer(work, stages, listener.progress, pool, listener.stop)
        warn_missing(work.original, listener)
        write_results(run)
        is_whole = asked.stages[-1] == "verify" and asked.part is None
        if output.report and is_whole and not listener.stop():
            report.write(run)
        run.unlock()
    except BaseException:
        run.close()
        raise
    return run


def _tell_least(
    captions: int, fdr: float | None, calibration: Calibration, listener: Listener
) -> None:
    """Say if the hold-out captions are too few for a list of this many captions."""
    scored = len(calibration.trajectories)
    if fdr is not None and (least := least_listed(captions, fdr, scored)) > 1:
        listener.say(
            f"list: with {scored} hold-out captions no p-value is under 1/{scored + 1}, so that a"
            f" list of {captions} captions holds {least} or more of them, or none; for a single one"
            f" it takes {holdout_needed(captions, fdr)} hold-out captions"
        )


def _warn_long_captions(work: Work, table: Any, listener: Listener) -> None:
    """Warn of captions that the model or its judge truncates, in a table or (None) in the run."""
    judge = work.judges.alignment
    readers = [] if judge is None else [judge.reader]
    captions, most = (work.run.captions(), None) if table is None else (table, table.most)
    warn_long(work.model, captions, listener, most, readers=readers)
    if judge is not None:
        judge.told = work.model.told


def log(run: Run, output: Output, listener: Listener) -> None:
    """Log a run to a tracker, if requested."""
    if output.track is not None and not listener.stop():
        name, _, folder = output.track.partition("=")
        track(run, name, Path(folder) if folder else None)
        listener.say(f"logged to {name}")


# resuming an audit --------------------------------------------------------------------------------


def is_begun(out: str | Path) -> bool:
    """Whether a directory holds an audit that can resume: captions, settings and a calibration."""
    names = ("run.sqlite", "calibration/calibration.json")
    return all((Path(out) / name).is_file() for name in names)


def go_on(
    pool: Pool,
    table: Any,
    folder: Path | None,
    output: Output,
    pictures: Pictures,
    listener: Listener,
    judges: Judges | None = None,
) -> Run:
    """Resume an audit with the settings that its run keeps, and with other images and judges if
    `pictures` requests them.

    `table`: the captions to audit; None: those of the run. `folder`: that of their pictures.
    `judges`: those of the run from now on, if they are open.
    """
    kept = beginning_of(output.path)
    plan = with_pictures(kept.plan, pictures)
    listener.say(f"{output.path} goes on with its own settings and calibration")
    asked = Ready(table, kept.calibration, output, PATH, plan, kept.part, folder, judges=judges)
    return run_stages(pool, kept.calibration, asked, listener)


def refuse_changed(out: str | Path, detecting: Detecting, pictures: Pictures) -> None:
    """Raises MismatchError naming an option that cannot change once a run has begun."""
    own = Calibration.load(Path(out) / "calibration")
    if (given := given_calibration(detecting)) is None:
        same = detecting.holdout is None and detecting.fpr in (None, own.fpr)
    else:
        same = given.same(own)
    if not same:
        name = "calibration" if detecting.calibration is not None else "threshold"
        raise MismatchError(
            f"{out} was made with another {name}: leave --calibration, --holdout and --fpr out, or"
            " give another --out"
        )
    refuse_unseen(out, pictures)


def refuse_unseen(out: str | Path, pictures: Pictures) -> None:
    """Raises MismatchError for another descriptor in the audit of a fine-tune, where it would
    decide anew which training pictures are copied.
    """
    settings = begun_settings(out) or {}
    other = str(pictures.descriptor) != settings.get("judges", {}).get("descriptor")
    if "training" in settings and pictures.descriptor is not None and other:
        raise MismatchError(
            f"{out} is the audit of a fine-tune, and --descriptor says which training pictures are"
            " copied: give it to the same `findnemo audit` with --train-images"
        )
