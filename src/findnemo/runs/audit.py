"""The audit of a table of captions in a run directory: detect, localize, verify.

Every step resumes where it stopped.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from findnemo._version import __version__
from findnemo.calibration import Calibration
from findnemo.detection import Detection, detect_many
from findnemo.errors import FindnemoError
from findnemo.localization import (
    DEFAULT,
    TrajectorySearch,
    bystanders,
    check_score,
    diagnose,
    localize,
    localize_copies,
)
from findnemo.metrics.kind import is_memory
from findnemo.models import Model
from findnemo.neurons import EMPTY
from findnemo.passes import group_size, search_group
from findnemo.prompts import Prompt
from findnemo.runs._same import require_same
from findnemo.runs.changing import change, remove_stale
from findnemo.runs.discoveries import keep_list
from findnemo.runs.finished import finish_first
from findnemo.runs.stages import Crew, Progress, Stage, no_progress, run_stage
from findnemo.runs.standing import STAGES, all_neurons, neurons_of, treated_as_memory
from findnemo.runs.store import Caption, Run
from findnemo.runs.table import Shard, asked_captions, enter
from findnemo.runs.together import check_union
from findnemo.runs.trust import vouch
from findnemo.runs.work import (
    AuditPlan,
    Item,
    StageAnswer,
    Tools,
    Work,
    commit,
    each,
    originals_of,
    pictures_of,
    scope_of,
    verify_with,
)
from findnemo.runs.workers import Pool, Serial, Step, Unit, answer_of, never
from findnemo.runs.worklist import groups, list_open
from findnemo.runtime.memory import guarding_memory
from findnemo.runtime.plugins import packages
from findnemo.verification import RANDOM, Look, quality


def start(
    out: str | Path,
    model: Model,
    calibration: Calibration,
    plan: AuditPlan,
    shard: Shard | None = None,
    wait: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """Open the run directory for writing, keep the calibration in it, and return the run.

    `shard`: the part of the table that this run answers. `wait`: wait for another process that
    writes to the run. `tell`: called with what becomes of earlier results (`changing`) if the plan
    gives an existing run other image settings or judges. Without `tell` such a plan is refused.
    """
    calibration.check(model)
    check_score(plan.search, calibration)
    part = {} if shard is None else {"shard": str(shard)}
    settings = plan.settings(model, calibration) | part
    run = Run.create(out, settings, wait, tell and partial(change, tell=tell))
    try:
        remove_stale(run)
        if not (run.path / "calibration" / "calibration.json").exists():
            calibration.save(run.path / "calibration")
        remember_source(run, model)
        run.set_meta("versions", _versions(model))
        if run.meta("widths") is None:
            run.set_meta("widths", model.widths("all"))
    except BaseException:
        run.close()
        raise
    return run


def remember_source(run: Run, model: Model) -> None:
    """Keep where the model was last found, and how it was opened; no result depends on it."""
    run.set_meta("source", model.source)
    run.set_meta("source_options", model.options)
    vouch(run)


def audit(
    work: Work,
    prompts: Iterable[Prompt],
    stages: Sequence[str] = STAGES,
    progress: Progress = no_progress,
    pool: Pool | None = None,
    stop: Callable[[], bool] = never,
) -> list[Caption]:
    """Run the stages over the captions and return the captions with their results.

    Answers that the run already holds are not computed again. A caption on which a stage fails (the
    model returns NaN, say) is marked failed with the reason, and the audit goes on.

    `pool`: the workers that answer; without one, this process answers with the model of `work`.
    `stop`: called between captions, or between groups that share passes. Once it returns True,
    nothing more is begun, and the results so far are returned.

    Raises StorageError where nothing can be written; the same call resumes once there is room. For
    tables that do not fit in memory use `table.enter` and `answer`.
    """
    enter(work.run, prompts)
    answer(work, stages, progress, pool, stop)
    return asked_captions(work.run)


def answer(
    work: Work,
    stages: Sequence[str] = STAGES,
    progress: Progress = no_progress,
    pool: Pool | None = None,
    stop: Callable[[], bool] = never,
) -> bool:
    """Run the stages over the requested captions (`table.enter`, `table.ask_all`).

    Returns whether everything was done before `stop()`. Answers are the same to the last bit
    whoever computes them: the ids of captions decide which of them share passes. Memory is constant
    in the number of captions. Raises MismatchError if the model is no longer the one with which the
    run was begun.
    """
    pool = pool or Serial(work.model)
    for stage in stages:
        require_same(work.run, work.model, pictures=stage == "verify" and bool(work.plan.images))
        if stage == "localize":
            work = replace(work, plan=replace(work.plan, scope=scope_of(work, pool, progress)))
        _answer_stage(work, stage, Crew(pool, progress, stop))
        if stage == "detect":
            keep_list(work.run)
        if stop():
            return False
    if "verify" in stages and "shard" not in work.run.meta("settings"):
        if not check_union(work, pool, progress, stop):
            return False
        check_quality(work, pool, progress)
        if work.plan.images:
            finish_first(work.run, work.plan.image_settings, pool, progress)
    return True


def _answer_stage(work: Work, stage: str, crew: Crew) -> None:
    block = group_size(work.model)  # no shard divides a group
    size, within = (block, None) if stage == "detect" else (search_group(work.model), block)
    captions, count = list_open(work.run, stage, size=size, within=within)
    units = (
        Unit(tuple((c, originals_of(work, stage, c)) for c in group))
        for group in groups(work.run, size)
    )
    step = partial(STEPS[stage], **work.tools)
    write = partial(commit, work.run, stage)
    run_stage(Stage(stage, step, units, count, write, captions), *crew)


def _detect(model: Model, items: Sequence[Item], **known: Any) -> list[StageAnswer]:
    """The step of a worker: detect captions that share passes. `known`: `Work.tools`."""
    tools = Tools(model, **known)
    plan = tools.plan
    texts = [caption.text for caption, _ in items]
    all_seeds = plan.fdr is not None
    try:
        with guarding_memory(model.device, "a single caption"):
            found = detect_many(model, texts, tools.calibration, all_seeds, plan.miss)
    except FindnemoError as problem:  # fails the whole group, such as a device out of memory
        return [StageAnswer(error=str(problem))] * len(items)
    return [
        StageAnswer(one.to_json() | _seen(plan, text))
        if isinstance(one, Detection)
        else StageAnswer(error=str(one))
        for text, one in zip(texts, found, strict=True)
    ]


def _seen(plan: AuditPlan, caption: str) -> dict[str, Any]:
    """The part of a detection that comes from finished images, not from the score."""
    return {"memorized": True, "copies": True} if caption in plan.copied else {}


def _localize(tools: Tools, caption: Caption) -> StageAnswer:
    plan = tools.plan
    settings = tools.calibration.settings
    about = (tools.model, caption.text, tools.calibration)
    by_trajectory = TrajectorySearch(plan.image_settings, plan.scope, plan.thorough)
    if originals := tools.originals.get(caption.id):
        found = localize_copies(*about, originals, by_trajectory)
    else:
        search = by_trajectory if plan.search == DEFAULT else plan.search
        near = () if plan.max_impact is None else bystanders(tools.model, plan.unrelated, settings)
        found = localize(*about, search, plan.max_impact, near)
    ordinary = tools.calibration.ordinary
    if not found.points or found.reached or not ordinary:
        return StageAnswer(found.to_json())
    # there is nothing to switch off: say what carries the memory
    carrier = diagnose(tools.model, caption.text, ordinary, plan.image_settings, settings.seed)
    return StageAnswer(found.to_json() | {"diagnosis": carrier.to_json()})


def verified(tools: Tools, caption: Caption, made: Look | None = None) -> StageAnswer:
    """Verify a caption with its own neurons off; the answer holds its pictures.

    `made`: its stored pictures.
    """
    neurons = neurons_of(caption)
    original = tools.original(caption)
    tools.calibration.check(tools.model)
    # `check_union` settles doubt about pictures with neurons off, for all neurons together
    look = replace(made or Look(), confirm=False)
    result = verify_with(tools, caption, neurons, look)
    return StageAnswer(result.values, pictures_of(caption, result, len(neurons), original))


STEPS: dict[str, Step] = {  # stage -> the step of a worker
    "detect": _detect,
    "localize": partial(each, do=_localize),
    "verify": partial(each, do=verified),
}


def check_quality(work: Work, pool: Pool, progress: Progress) -> None:
    """Compare images of captions that are not memorized before and after all neurons of the run are
    off; the run keeps it as `quality`.
    """
    run = work.run
    plan = work.plan
    neurons = all_neurons(run.captions(stage="localize"))
    clean = not_memorized(run, plan.quality_prompts)
    basis = {"neurons": neurons.to_json(), "prompts": clean}
    if neurons == EMPTY and run.meta("quality") is not None:  # no neurons are off any more
        run.set_meta("quality", None)
        run.set_meta("quality_basis", None)
    if plan.images and neurons != EMPTY and clean and run.meta("quality_basis") != basis:
        checking = partial(
            quality,
            neurons=neurons,
            image_settings=plan.image_settings,
            judges=work.judges,
            draws=RANDOM,
            thorough=plan.thorough,
        )
        result = answer_of(pool, checking, tuple(clean), "check of other captions", progress)
        run.set_meta("quality", result)
        # failed checks are tried again
        run.set_meta("quality_basis", None if result["failed"] else basis)


def not_memorized(run: Run, most: int) -> list[str]:
    """The first captions of a run that are not memorized, at most `most`.

    Captions over tau whose images are no copies count too: a selection by the score alone would be
    biased. Captions whose type says that they are memories do not count, since detection may have
    missed them.
    """
    others = (
        c.text
        for c in run.captions(stage="detect")
        if not treated_as_memory(c) and not is_memory(c.type)
    )
    return list(islice(others, most))


def _versions(model: Model) -> dict[str, str]:
    """Versions with which the run was last worked on, and the number of threads, on which the last
    bits of results depend.
    """
    import diffusers
    import torch
    import transformers

    modules = {"torch": torch, "diffusers": diffusers, "transformers": transformers}
    return (
        {"findnemo": __version__, "python": platform.python_version()}
        | {n: m.__version__ for n, m in modules.items()}
        | {"threads": str(getattr(model, "threads", torch.get_num_threads()))}
        | packages()
    )
