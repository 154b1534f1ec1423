"""The workbench of studies: a run with its workers, and results that are computed once and kept in
the run.

Everything that needs the model is a picklable function `compute(desk, item)`, so any pool can do
it. Only the bench writes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from findnemo.calibration import Calibration
from findnemo.edits import deactivate
from findnemo.errors import DeviceError, FindnemoError, StoppedError
from findnemo.files.writing import write_all
from findnemo.images import ImageSettings, generate, png
from findnemo.metrics.kind import is_memory
from findnemo.neurons import NeuronSet
from findnemo.passes import score
from findnemo.runs.calibrating import as_published
from findnemo.runs.compare import (
    LISTING,
    apart,
    comparison_images,
    comparison_values,
    kept_images,
    localized_captions,
    samples,
    untouched_files,
)
from findnemo.runs.overview import layers_shown, sampler_of
from findnemo.runs.stages import Progress, Stage, no_progress, run_stage
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption, settings_of
from findnemo.runs.work import StageAnswer, Tools, Work
from findnemo.runs.workers import Event, Pool, Serial, Unit, never
from findnemo.runtime.memory import guarding_memory
from findnemo.seeds import FRESH
from findnemo.settings import Settings
from findnemo.studies._catalogue import stock
from findnemo.studies._quality import Reference
from findnemo.studies.nemo import listing
from findnemo.studies.registry import STUDIES
from findnemo.studies.rows import judge_of
from findnemo.studies.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from findnemo.models import Model

Key = TypeVar("Key")


@dataclass(frozen=True)
class Study:
    """The result of a study.

    `figures`: by file name. `text`: what they show, in a few sentences for a reader who knows the
    paper.
    """

    text: str
    tables: Sequence[Table] = ()
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Desk(Tools):
    """What a computation has, in any process.

    `before`: the untouched images of its caption, if the run keeps them.
    """

    before: Sequence[Image.Image] | None = None


Compute = Callable[[Desk, Any], Any]


@dataclass(frozen=True)
class Job:
    """A result of a caption that the run keeps under a name.

    `compute(desk, caption)`: returns its `StageAnswer`. `pictures`: whether it needs images; the desk
    then has those that the run keeps, and the training image.
    """

    name: str
    caption: Caption
    compute: Callable[[Desk, Caption], StageAnswer]
    pictures: bool = False


@dataclass(frozen=True)
class Bench:
    """A run to study.

    `limit`: memorized captions per type in costly studies. `pool`: the workers; None: this process.
    `unrelated`: captions known not to be memorized, whatever detection says about them
    (`runs.ordinary`), and none of the hold-out captions. `under`: captions of unknown kind under
    tau, used if there are no others. They show how edits change images, but say nothing about
    detection, which selected them. `stop`: called between computations; once it returns True,
    StoppedError is raised. `reference`: the reference for the quality of images.
    """

    work: Work
    unrelated: Sequence[str]
    limit: int | None = None
    progress: Progress = no_progress
    under: Sequence[str] = ()
    pool: Pool | None = None
    stop: Callable[[], bool] = never
    reference: Reference = field(default_factory=Reference)

    @cached_property
    def workers(self) -> Pool:
        return self.pool or Serial(self.work.model)

    @property
    def model(self) -> Model:
        """The model, or facts about it (`Pool.model`): no study runs it in this process."""
        return self.work.model

    @cached_property
    def calibration(self) -> Calibration:
        """The run's calibration with a published score: studies follow the paper's procedure."""
        work = self.work
        return as_published(work.run, self.workers, work.calibration, self.progress)

    @property
    def image_settings(self) -> ImageSettings:
        return self.work.plan.image_settings

    @cached_property
    def layers(self) -> list[str]:
        """Value layers to report, in forward order: the paper's, or all if a neuron of the run lies
        in another.
        """
        run = self.work.run
        return list(layers_shown(run, run.captions(), self.model.widths()))

    @property
    def others(self) -> Sequence[str]:
        """Captions that are not memorized: those known to be none, else those under tau."""
        return self.unrelated or self.under

    @cached_property
    def apart(self) -> str:
        """The suffix of results with images or judges other than the run's own
        (`runs.compare.apart`).
        """
        return apart(self.work)

    @property
    def clip(self) -> str:
        """The CLIP behind A_CLIP, in words."""
        return judge_of(self.work.run, self.work.plan.judges)

    @property
    def made_with(self) -> str:
        """How finished images are made and judged, in a sentence."""
        plan = self.work.plan
        settings = settings_of(self.work.run) | {"image_settings": plan.image_settings.to_json()}
        judges = {"descriptor": self.work.judges.descriptor, "CLIP": self.work.judges.alignment}
        judged = [
            judge_of(self.work.run, plan.judges, kind)
            for kind, judge in judges.items()
            if judge is not None
        ]
        return (
            f"Images: {len(samples(self.work))} a caption where nothing else is said, sampler"
            f" {sampler_of(settings)}, {plan.image_settings.steps} steps, guidance"
            f" {plan.image_settings.guidance:g}. Judged by {' and '.join(judged) or 'nothing'}."
        )

    @cached_property
    def stock(self) -> dict[str, int]:
        """Key of NEEDS -> how many of them there are."""
        work = self.work
        there = {"descriptor": work.judges.descriptor, "clip": work.judges.alignment}
        judges = [name for name, judge in there.items() if judge is not None]
        return stock(
            work.run,
            work.calibration,
            judges,
            self.unrelated,
            self.others,
            len(self.reference.pictures),
        )

    def whence(self, captions: Sequence[str]) -> str:
        """The sources of captions of `others`: `20 of this run, 40 given`."""
        if not self.unrelated and captions:
            return f"{len(captions)} of this run under tau (it knows the kind of no caption)"
        own = {c.text for c in self.work.run.captions()}
        counts = Counter(
            "of this run, without the type of a memory" if text in own else "of other sources"
            for text in captions
        )
        return ", ".join(f"{n} {where}" for where, n in counts.items()) or "none"

    def memorized_captions(self) -> list[Caption]:
        """Captions of the run with neurons, in order; if some have a type, only those."""
        return localized_captions(self.work.run.captions())

    def sample(self) -> list[Caption]:
        """The first `limit` captions of each type, for costly studies."""
        return first_of_each(self.memorized_captions(), self.limit)

    # computing ------------------------------------------------------------------------------------

    def over(self, name: str, compute: Compute, items: Sequence[Any]) -> list[Any]:
        """`compute(desk, item)` of every item, in order.

        If items raise errors, the first error is raised once all items are done.
        """
        answers = [None] * len(items)
        problems: dict[int, Exception] = {}

        def keep(k: int, answer: Any, seconds: float) -> None:
            if isinstance(answer, Exception):
                problems[k] = answer
            else:
                answers[k] = answer

        self._spread(name, compute, items, len(items), keep)
        if problems:
            raise problems[min(problems)]
        return answers

    def results(self, name: str, jobs: Mapping[Key, Job]) -> dict[Key, dict[str, Any]]:
        """Key -> result of its job, from the run or computed now and kept.

        `name`: of the work, for progress reports. A job that fails is recorded with the reason, has
        no result, and is tried again next time.
        """
        run = self.work.run
        places = {
            key: (job.caption.id, f"study{self.apart if job.pictures else ''}:{job.name}")
            for key, job in jobs.items()
        }
        open_ = {places[key]: job for key, job in jobs.items() if run.result(*places[key]) is None}
        at = list(open_)
        self.untouched([job.caption for job in open_.values() if job.pictures])
        wrong: list[Exception] = []

        def keep(k: int, answer: Any, seconds: float) -> None:
            if isinstance(answer, FindnemoError):
                answer = StageAnswer(error=str(answer))
            if isinstance(answer, Exception):
                wrong.append(answer)
                return
            write_all({run.path / file: content for file, content in answer.files.items()})
            run.record(*at[k], answer.payload, seconds, answer.error)

        cases = map(self._case, open_.values())
        done = len(set(places.values())) - len(open_)
        self._spread(name, _of_caption, cases, len(open_), keep, done)
        if wrong:
            raise wrong[0]
        found = {key: run.result(*place) for key, place in places.items()}
        return {key: payload for key, payload in found.items() if payload is not None}

    def untouched(self, captions: Iterable[Caption]) -> None:
        """Make and keep the untouched images of captions, if settings differ from the run's own.

        A caption on which that fails has none.
        """
        if not self.apart:
            return
        unique = {c.id: c for c in captions}.values()
        missing = [c for c in unique if kept_images(self.work, c) is None]

        def keep(k: int, answer: Any, seconds: float) -> None:
            if not isinstance(answer, Exception):
                files = untouched_files(self.work, missing[k], self.apart)
                write_all(dict(zip(map(self.work.run.path.joinpath, files), answer, strict=True)))

        self._spread("untouched images", _untouched, missing, len(missing), keep)

    def _case(self, job: Job) -> tuple[Job, Any, Any]:
        """A job with the images that it needs."""
        if not job.pictures:
            return job, None, ()
        return job, kept_images(self.work, job.caption), self.work.originals(job.caption)

    def _spread(
        self,
        name: str,
        compute: Compute,
        items: Iterable[Any],
        count: int,
        keep: Callable[[int, Any, float], None],
        done: int = 0,
    ) -> None:
        """Have the workers do `compute(desk, item)` for `count` items.

        `keep(position, answer, seconds)`: called with each answer or error.
        """

        def commit(events: Sequence[Event]) -> int:
            for event in events:
                answer = DeviceError(event.aside) if event.aside else event.answers[0]
                keep(event.unit.items[0][0], answer, event.seconds)
            return len(events)

        total = count + done
        step = partial(_computed, compute=compute, **self.work.tools)
        units = (Unit((item,)) for item in enumerate(items))
        stage = Stage(name, step, units, count, commit, total, done)
        if run_stage(stage, self.workers, self.progress, self.stop) < total:
            raise StoppedError(f"stopped before all {total} of {name} were done")

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The run's result of this name for the same neurons and captions, else `compute()`."""
        key = f"study:{name}"
        basis = {
            "neurons": {str(c.id): neurons_of(c).to_json() for c in self.memorized_captions()},
            "unrelated": list(self.others),
            "limit": self.limit,
            "settings": self.apart,
        }
        kept = self.work.run.meta(key)
        if kept is None or kept["basis"] != basis:
            kept = {"basis": basis, "result": compute()}
            self.work.run.set_meta(key, kept)
        self.progress(name, 1, 1)
        return kept["result"]

    # shared by several studies --------------------------------------------------------------------

    def each(
        self,
        name: str,
        captions: Sequence[Caption],
        compute: Callable[[Desk, Caption], StageAnswer],
    ) -> dict[int, dict[str, Any]]:
        """Caption id -> result of this name, without failures."""
        return self.results(name, {c.id: Job(name, c, compute) for c in captions})

    def off(
        self, name: str, cases: Mapping[Key, tuple[Caption, NeuronSet, float]]
    ) -> dict[Key, dict[str, Any]]:
        """How images of captions compare with neurons scaled by a factor, as in a comparison of
        mitigations; without failures.
        """
        jobs = {}
        for key, (caption, neurons, factor) in cases.items():
            change = json.dumps([neurons.to_json(), factor], sort_keys=True)
            stage = f"off:{hashlib.sha256(change.encode()).hexdigest()[:16]}"
            compute = partial(_off, neurons=neurons, factor=factor)
            jobs[key] = Job(stage, caption, compute, pictures=True)
        return self.results(name, jobs)

    def listed_neurons(self, captions: Sequence[Caption]) -> dict[int, tuple[NeuronSet, NeuronSet]]:
        """Caption id -> candidates and refined neurons of the listing, from a comparison of
        mitigations or computed now; without failures.
        """
        kept = {c.id: self.work.run.result(c.id, LISTING) for c in captions}
        compute = partial(listing_answer, calibration=self.calibration)
        jobs = {c.id: Job("nemo:listing", c, compute) for c in captions if kept[c.id] is None}
        found = kept | self.results("listing", jobs)
        return {
            i: (NeuronSet(p["candidates"]), NeuronSet(p.get("refined", p.get("neurons"))))
            for i, p in found.items()
            if p is not None
        }

    def scores(self) -> dict[int, float]:
        """Caption id -> memorization score over all seeds, of captions with the type of a memory,
        found or missed.
        """
        typed = [c for c in self.work.run.captions() if is_memory(c.type)]
        compute = partial(_scored, settings=self.calibration.settings)
        return {i: payload["score"] for i, payload in self.each("score", typed, compute).items()}


def by_type(captions: Iterable[Caption], none: str = "") -> dict[str, list[Caption]]:
    """Type -> its captions, both in order of appearance.

    `none`: the name of the group without a type.
    """
    kinds: dict[str, list[Caption]] = {}
    for caption in captions:
        kinds.setdefault(caption.type or none, []).append(caption)
    return kinds


def first_of_each(captions: Iterable[Caption], most: int | None) -> list[Caption]:
    """At most so many captions of each type."""
    return [c for group in by_type(captions).values() for c in group[:most]]


# steps of workers ---------------------------------------------------------------------------------


def _computed(model: Model, items: Sequence[Any], compute: Compute, **tools: Any) -> list[Any]:
    """The step: the result for every (position, item), or the error that it raises."""
    desk = Desk(model, **tools)
    return [_answer(desk, compute, item) for _, item in items]


def _answer(desk: Desk, compute: Compute, item: Any) -> Any:
    try:
        with guarding_memory(desk.model.device, "a single caption"):
            return compute(desk, item)
    except (RuntimeError, MemoryError):
        raise  # errors of the machine: the pool must not trust this worker any more
    except Exception as problem:  # the driver decides what to do with it
        return problem


def _of_caption(desk: Desk, case: tuple[Job, Any, Any]) -> StageAnswer:
    job, before, originals = case
    known = {job.caption.id: originals}
    return job.compute(replace(desk, before=before, originals=known), job.caption)


def compare_edit(
    desk: Desk, caption: Caption, edit: AbstractContextManager[None], file: str | None = None
) -> StageAnswer:
    """How images of a caption compare under an edit; the first image goes to a file of the run."""
    with edit:
        after = comparison_images(desk, caption)
    before = list(desk.before or comparison_images(desk, caption))
    files = {} if file is None else {file: png(after[0])}
    return StageAnswer(comparison_values(desk, caption, after, before), files)


def first_image(desk: Desk, item: tuple[str, NeuronSet]) -> Image.Image:
    """The first image of a caption with neurons off."""
    text, off = item
    with deactivate(desk.model, off):
        return generate(desk.model, text, [FRESH], desk.plan.image_settings)[0]


def _untouched(desk: Desk, caption: Caption) -> list[bytes]:
    return [png(image) for image in comparison_images(desk, caption)]


def _off(desk: Desk, caption: Caption, neurons: NeuronSet, factor: float) -> StageAnswer:
    found = compare_edit(desk, caption, deactivate(desk.model, neurons, factor))
    return StageAnswer(found.payload | {"neurons": len(neurons)})


def listing_answer(
    desk: Desk, caption: Caption, calibration: Calibration, top_k: bool = True
) -> StageAnswer:
    """The result of Algorithms 1 to 4 on a caption."""
    return StageAnswer(listing(desk.model, caption.text, calibration, top_k))


def _scored(desk: Desk, caption: Caption, settings: Settings) -> StageAnswer:
    found = caption.localized
    seen = caption.detected
    own = desk.calibration.settings == settings  # the run has the same scores as the study
    if own and found is not None:
        return StageAnswer({"score": found.score_before})
    if own and seen is not None and seen.samples == settings.samples:
        return StageAnswer({"score": seen.score})
    return StageAnswer({"score": score(desk.model, caption.text, settings=settings)})


def write(study: Study, folder: Path, name: str, settings: str = "") -> None:
    """Write `name`.md with heading, text, tables and figures; tables also as CSV and LaTeX, figures
    as PNG and SVG.

    `settings`: a last line.
    """
    from findnemo.studies.figure import write_figure

    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {STUDIES[name].heading}\n", study.text + "\n"]
    for k, table in enumerate(study.tables, 1):
        stem = name if len(study.tables) == 1 else f"{name}-{k}"
        (folder / f"{stem}.csv").write_text(table.csv(), encoding="utf-8")
        (folder / f"{stem}.tex").write_text(table.latex(), encoding="utf-8")
        parts.append(table.markdown())
    for stem, figure in study.figures.items():
        write_figure(figure, folder / stem)
        parts.append(f"![{stem}]({stem}.png)\n")
    parts += [settings + "\n"] if settings else []
    (folder / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")
