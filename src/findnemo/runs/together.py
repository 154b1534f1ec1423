"""Look at every memorized caption with the neurons of all captions off together, and search further
for what came back: the work that `union.settle` asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from findnemo.files.fetch import RefusedError
from findnemo.files.originals import picture
from findnemo.localization import DEFAULT, TrajectorySearch, localize_further
from findnemo.metrics.copies import copies_in
from findnemo.neurons import NeuronSet
from findnemo.passes import group_size, search_group
from findnemo.runs.results import Together
from findnemo.runs.stages import Crew, Progress, Stage, no_progress, run_stage
from findnemo.runs.standing import cleaned_folder, image_name, neurons_of
from findnemo.runs.store import Caption
from findnemo.runs.union import Union, digest_of, first_sample, grouped, settle
from findnemo.runs.work import (
    Item,
    StageAnswer,
    Tools,
    Work,
    caption_answers,
    each,
    keep,
    originals_of,
    pictures_of,
    scope_of,
    verify_with,
)
from findnemo.runs.workers import Event, Pool, Serial, Step, Unit, never
from findnemo.seeds import FRESH
from findnemo.verification import Look, copying_seeds

ToItem = Callable[[Caption], Item]
UNION_STAGES = {  # kind of stage -> what progress calls it
    "glance": "verify, all neurons together",
    "union": "confirm, all neurons together",
    "further": "localize, captions that came back",
}


def check_union(
    work: Work,
    pool: Pool | None = None,
    progress: Progress = no_progress,
    stop: Callable[[], bool] = never,
) -> bool:
    """Look at every memorized caption with the neurons of all captions off together, and search
    further for captions that copy again (`union.settle`).

    Returns whether everything was done before `stop()`. The images of verification serve as
    untouched ones. Results are committed as they come.
    """
    run = work.run
    crew = Crew(pool or Serial(work.model), progress, stop)
    run.backup()

    def look(union: Union, captions: Sequence[Caption], glance: bool) -> bool:
        if all(union.look_stage in caption.results for caption in captions):
            return not stop()
        # one image, or all steps from the start, leave nothing to confirm
        glance = glance and work.plan.images > 1 and not work.plan.thorough
        stage = union.glance_stage if glance else union.look_stage
        step = partial(each, do=partial(_looked, neurons=union.neurons), **work.tools)

        def item(caption: Caption) -> Item:
            known = replace(_look(work, union, caption), glance=glance)
            return caption, originals_of(work, "verify", caption), known

        return _answer_of_union(work, stage, step, captions, item, crew)

    def go_on(union: Union, captions: Sequence[Caption]) -> bool:
        if work.plan.search != DEFAULT:  # a published procedure stays unchanged
            return True
        scope = scope_of(work, crew.pool, progress)
        scoped = replace(work, plan=replace(work.plan, scope=scope))
        step = partial(each, do=partial(_further, neurons=union.neurons), **scoped.tools)

        def item(caption: Caption) -> Item:
            return caption, originals_of(work, "localize", caption)

        return _answer_of_union(work, union.further_stage, step, captions, item, crew)

    return settle(run, look, go_on)


def _look(work: Work, union: Union, caption: Caption) -> Look:
    """How to look at a caption: the samples, and the images of them that a glance made, or else
    verification.

    Images with neurons off are reused if verification had the same neurons off.
    """
    first = first_sample(caption, work.plan.images)
    positions = range(work.plan.images)
    glance: Together | None = caption.typed_result(union.glance_stage)
    own = caption.verified if first == FRESH else None
    seen = glance or own
    if seen is None or not positions:
        return Look(first)
    folder = work.run.path
    stage = "verify"
    whens = ["before", *["after"] * (glance is not None or neurons_of(caption) == union.neurons)]
    every = [(when, k) for when in whens for k in positions]
    whole = dict.fromkeys(every, folder) if own is not None else {}
    if glance is not None:
        folder = folder / cleaned_folder(union.digests[-1])
        stage = union.glance_stage
        whole = {one: at for one, at in whole.items() if one[0] == "before"}
        whole |= dict.fromkeys(every if glance.steps is None else glance.whole, folder)
    images = Path("images") / caption.slug
    try:
        made = {
            when: [
                picture(folder / images / f"{image_name(caption, when, stage)}-{k:02d}.png")
                for k in positions
            ]
            for when in whens
        }
        known = {
            (when, k): picture(file)
            for (when, k), at in whole.items()
            if (file := at / images / f"{when}-{k:02d}.png").exists()
        }
    except RefusedError:  # a picture is lost or damaged: make them again
        return Look(first)
    quick = {} if seen.steps is None else made
    spent = {} if glance is None else {"evaluations": glance.evaluations or 0}
    return Look(first, quick=quick, steps=seen.steps, whole=known, values=spent)


def _looked(tools: Tools, caption: Caption, look: Look, neurons: NeuronSet) -> StageAnswer:
    """What the images of a caption look like with `neurons` off."""
    result = verify_with(tools, caption, neurons, look)
    about: dict[str, Any] = {"first": look.first}
    if look.glance:
        about["whole"] = sorted(result.looked.whole)
    if copies_in(result.values, "after"):
        about["back"] = [look.first + k for k in copying_seeds(result.looked)]
    files = pictures_of(caption, result, len(neurons), tools.original(caption))
    place = cleaned_folder(digest_of(neurons))
    return StageAnswer(
        result.values | about, {f"{place}/{file}": data for file, data in files.items()}
    )


def _further(tools: Tools, caption: Caption, neurons: NeuronSet) -> StageAnswer:
    """The neurons that a further search finds for a caption, with `neurons` off."""
    plan = tools.plan
    search = TrajectorySearch(plan.image_settings, plan.scope, plan.thorough)
    failed = () if caption.together is None else caption.together.back
    originals = tools.originals[caption.id]
    about = (tools.model, caption.text, tools.calibration, neurons, failed, originals)
    return StageAnswer(localize_further(*about, search).to_json())


def _answer_of_union(
    work: Work, stage: str, step: Step, captions: Sequence[Caption], item: ToItem, crew: Crew
) -> bool:
    """Answer a stage for the captions that have no answer yet; return whether all was done before
    the crew was asked to stop.

    Captions are grouped to share passes, and groups are computed whole.
    """
    open_ = {c.id for c in captions if stage not in c.results}
    shared = grouped(captions, search_group(work.model), group_size(work.model))
    groups = [group for group in shared if open_ & {c.id for c in group}]
    units = (Unit(tuple(map(item, group))) for group in groups)

    def write(events: Sequence[Event]) -> int:
        return keep(work.run, [one for one in caption_answers(stage, events) if one[0].id in open_])

    name = UNION_STAGES[stage.partition(":")[0]]
    if groups:
        run_stage(Stage(name, step, units, len(groups), write, len(open_)), *crew)
    return not crew.stop()
