"""Every mitigation on every memorized caption of a run: finished images with it against without it (Finding NeMo, Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from findnemo._memory import named
from findnemo._writing import write_all
from findnemo.errors import FindnemoError, InputError
from findnemo.images import generate, intact_png, png
from findnemo.mitigation import MITIGATIONS, Case
from findnemo.models import Model
from findnemo.originals import picture
from findnemo.runs._same import require_same
from findnemo.runs.audit import Answer, Progress, Tools, Work, not_memorized
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.runs.table import ask_all
from findnemo.runs.workers import Dispatch, Pool, Serial, Unit, drive, never
from findnemo.runs.worklist import groups, list_open
from findnemo.verification import FRESH, compare_images

NONE = "none"  # nothing mitigated: the row that all others are compared with
STAGE = "compare:"  # and the name: the stage of a mitigation in the run store
TYPED = "(SELECT type FROM captions WHERE id = a.caption) <> ''"  # captions with a type, where there are any (localized_captions)
REFERENCES = 8  # captions that are not memorized, for methods that compare with such


def methods(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """The mitigations to compare, `none` first; all by default. Raises InputError naming one that is not known."""
    wanted = tuple(MITIGATIONS if names is None else names)
    for name in wanted:
        if name not in MITIGATIONS and name != NONE:
            raise InputError(f"mitigation {name!r} is not known: use {', '.join(MITIGATIONS)}")
    return (NONE, *(n for n in wanted if n != NONE))


def compare(
    work: Work,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    pool: Pool | None = None,
    stop: Callable[[], bool] = never,
) -> None:
    """Make the images of every localized caption under each mitigation, judge them, and record what is found.

    What is answered is not done again. The first image of each is kept in `compare/`. A method that fails on a caption is recorded
    as failed with the reason. `pool`: who does it; without one, this process. Once `stop` says so, nothing more is
    begun. Raises MismatchError where the model, autoencoder and sampler included, is not the run's.
    """
    wanted, run, pool = methods(names), work.run, pool or Serial(work.model)
    stages = [STAGE + name for name in wanted]
    require_same(run, work.model, pictures=True)
    ask_all(run)
    typed = TYPED if list_open(run, "compare", ["-"], extra=TYPED)[0] else "1"
    count = len(wanted) * list_open(run, "compare", ["-"], extra=typed)[0]
    marks = ", ".join("?" * len(stages))
    answered = f"SELECT COUNT(*) FROM results WHERE status = 'done' AND stage IN ({marks}) AND caption IN (SELECT caption FROM temp.open)"
    done = run.query(answered, stages)[0][0]
    list_open(run, "compare", stages, extra=typed)
    told = progress or (lambda stage, done, total: None)
    tools: dict[str, Any] = {"calibration": work.calibration, "plan": work.plan, "judges": work.judges}
    step = partial(_compared, reference=tuple(not_memorized(run, REFERENCES)), **tools)
    told("compare", done, count)
    for event in drive(pool, step, Dispatch(_units(work, wanted), count - done, pool.size, pool.aim), stop):
        case = event.unit.items[0]
        found = [Answer(error=event.aside)] * len(case.methods) if event.aside else event.answers[0]
        write_all({run.path / file: content for answer in found for file, content in answer.files.items()})
        seconds = event.seconds / len(found)
        of_methods = zip(case.methods, found, strict=True)
        run.record_all((case.caption.id, STAGE + name, a.payload, seconds, a.error) for name, a in of_methods)
        done += len(found)
        told("compare", done, count)


@dataclass(frozen=True)
class Comparison:
    """What a worker gets: a caption, methods to try on it, and its images without any, if they are known, and its training image."""

    caption: Caption
    methods: tuple[str, ...]
    before: list[Image.Image] | None
    original: Image.Image | None


def _units(work: Work, wanted: Sequence[str]) -> Iterator[Unit]:
    """A method of a caption each; all its methods together where the images without any have to be made first."""
    for (caption,) in groups(work.run):
        open_ = tuple(n for n in wanted if STAGE + n not in caption.results)
        before, original = _kept(work, caption), work.original(caption)
        for part in [(name,) for name in open_] if before is not None else [open_]:
            yield Unit((Comparison(caption, part, before, original),))


def _compared(model: Model, items: Sequence[Comparison], reference: tuple[str, ...], **tools: Any) -> list[list[Answer]]:
    """The step: an answer for every method of every caption."""
    return [_of_caption(Tools(model, **tools, original=partial(_original, case)), case, reference) for case in items]


def _original(case: Comparison, caption: Caption) -> Image.Image | None:
    return case.original


def _of_caption(tools: Tools, case: Comparison, reference: tuple[str, ...]) -> list[Answer]:
    before = case.before
    if before is None:
        before = generate(tools.model, case.caption.text, samples(tools), tools.plan.image_settings)
    return [_answer(tools, case.caption, name, before, reference) for name in case.methods]


def _answer(tools: Tools, caption: Caption, name: str, before: list[Image.Image], reference: tuple[str, ...]) -> Answer:
    try:
        with named(tools.model.device, "a single caption"):
            after = before if name == NONE else made(tools, caption, mitigated(tools, caption, name, reference))
            return Answer(judged(tools, caption, after, before), {f"compare/{caption.slug}/{name}.png": png(after[0])})
    except FindnemoError as problem:
        return Answer(error=str(problem))


def localized_captions(captions: Iterable[Caption]) -> list[Caption]:
    """Captions with neurons. Where some have a type (VM, TM), those: one without is a caption that the threshold is wrong about."""
    found = [c for c in captions if len(neurons_of(c))]
    return [c for c in found if c.type] or found


def untouched(work: Work, caption: Caption) -> list[Image.Image]:
    """The images of a caption without any mitigation: those of verification, where it has been done."""
    return _kept(work, caption) or generate(work.model, caption.text, samples(work), work.plan.image_settings)


def _kept(work: Work, caption: Caption) -> list[Image.Image] | None:
    """Those of verification; None where they are not there or not whole."""
    files = [work.run.path / "images" / caption.slug / f"before-{k:02d}.png" for k in range(len(samples(work)))]
    return [picture(file) for file in files] if all(intact_png(file) for file in files) else None


def samples(work: Work | Tools) -> range:
    """The seeds of all images that are compared: verification's, at least two."""
    return range(FRESH, FRESH + max(work.plan.images, 2))


def mitigated(work: Work | Tools, caption: Caption, name: str, reference: tuple[str, ...] = ()) -> AbstractContextManager[None]:
    """The context in which a caption is generated under a mitigation."""
    seed = work.plan.image_settings.seed
    return MITIGATIONS[name](work.model, Case(caption.text, neurons_of(caption), seed, reference))


def made(work: Work | Tools, caption: Caption, context: AbstractContextManager[None]) -> list[Image.Image]:
    """The images of a caption in a context, one a seed of the comparison."""
    with context:
        return generate(work.model, caption.text, samples(work), work.plan.image_settings)


def judged(work: Work | Tools, caption: Caption, after: list[Image.Image], before: list[Image.Image]) -> dict[str, Any]:
    """What the images of a caption are like against those without a mitigation; medians over the seeds."""
    values = compare_images(caption.text, before, after, work.judges, work.original(caption))
    return {"images": len(after)} | {
        key.removesuffix("_after"): round(value, 4) for key, value in values.items() if not key.endswith("_before")
    }
