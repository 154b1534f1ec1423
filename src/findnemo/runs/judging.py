"""Judge the verified pictures of a run again after a change of its judges (`changing`).

Stored pictures are not made again. A picture in all steps is made if only the new judge needs it,
or if the stored one is damaged or missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from findnemo.files.originals import picture
from findnemo.images import intact_png
from findnemo.runs._same import require_same
from findnemo.runs.audit import verified
from findnemo.runs.changing import PICTURED
from findnemo.runs.results import Verified
from findnemo.runs.stages import Progress, Stage, run_stage
from findnemo.runs.store import Caption, Run
from findnemo.runs.work import AuditPlan, Work, caption_answers, each, keep
from findnemo.runs.workers import Event, Pool, Unit
from findnemo.verification import Look

if TYPE_CHECKING:
    from PIL import Image

NAME = re.compile(r"(quick-)?(before|after)-(\d\d)\.png")
# values of a verification that need no picture
NOISE = ("score_before", "score_after", "same_seed", "replicating")


def judge_anew(work: Work, pool: Pool, progress: Progress, stop: Callable[[], bool]) -> None:
    """Judge the captions that wait for the judges of the run; each is committed once judged."""
    run = work.run
    _forget(run)
    waiting = [c.id for c in run.captions(stage=PICTURED)]
    if not waiting:
        return
    require_same(run, work.model, pictures=True)
    units = (
        Unit(((caption, work.originals(caption), stored_look(run, caption, work.plan)),))
        for number in waiting
        for caption in run.captions([number])
    )
    step = partial(each, do=verified, alone=True, **work.tools)
    commit = partial(_commit, run, work.plan.images)
    count = len(waiting)
    run_stage(Stage("judge", step, units, count, commit, count), pool, progress, stop)


def stored_look(run: Run, caption: Caption, plan: AuditPlan) -> Look:
    """The intact stored pictures of an earlier verification of a caption."""
    earlier: Verified | None = caption.typed_result(PICTURED)
    if earlier is None:
        return Look()
    files = _files(run.path, caption)
    some: dict[str, list[Image.Image]] = {}
    for when in ("before", "after"):
        there = [files[key] for k in range(plan.images) if (key := ("quick-", when, k)) in files]
        some[when] = [picture(file) for file in there]
    is_quick = earlier.steps is not None and min(map(len, some.values())) == plan.images
    whole = {
        (when, k): picture(file)
        for (quick, when, k), file in files.items()
        if not quick and k < plan.images
    }
    noise = len(list((run.path / "noise" / caption.slug).glob("before-*.png")))
    names = NOISE if noise >= plan.images else ()
    values = {key: getattr(earlier, key) for key in (*names, "evaluations")}
    known = {key: value for key, value in values.items() if value is not None}
    some = some if is_quick else {}
    return Look(quick=some, steps=earlier.steps, whole=whole, values=known)


def _files(path: Path, caption: Caption) -> dict[tuple[str, str, int], Path]:
    """The intact pictures of a caption: ("quick-" or "", "before" or "after", number) -> file."""
    named = ((NAME.fullmatch(file.name), file) for file in _folder(path, caption).glob("*.png"))
    return {
        (match[1] or "", match[2], int(match[3])): file
        for match, file in named
        if match is not None and intact_png(file)
    }


def _folder(path: Path, caption: Caption) -> Path:
    return path / "images" / caption.slug


def _commit(run: Run, images: int, events: Sequence[Event]) -> int:
    """Commit the verifications, and remove pictures of seeds that are no longer wanted."""
    answers = caption_answers("verify", events)
    done = keep(run, answers)
    for caption, *_ in answers:
        for folder in (_folder(run.path, caption), run.path / "noise" / caption.slug):
            for file in folder.glob("*.png"):
                if (match := NAME.fullmatch(file.name)) and int(match[3]) >= images:
                    file.unlink()
    _forget(run)
    return done


def _forget(run: Run) -> None:
    """Remove the earlier verification of captions that have been judged since."""
    run.query(
        "DELETE FROM results WHERE stage = ? AND caption IN (SELECT caption FROM results WHERE"
        " stage = 'verify' AND status = 'done')",
        (PICTURED,),
    )
