"""Compare mitigations on every memorized caption of a run: finished images with and without each
(Finding NeMo, Table 1), and its effect on other captions.

NeMo is the listing as published (Algorithms 1 to 4), with nothing added afterwards. The neurons of
the run, found by its own search and extended by verification, are another method. Random neurons
are as many as NeMo's. All methods are judged on samples from FRESH on: searches use samples from 0
on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from PIL import Image

from findnemo.edits import deactivate
from findnemo.errors import InputError
from findnemo.files.originals import picture
from findnemo.files.writing import write_all
from findnemo.images import generate, intact_png, png, sheet
from findnemo.localization import localize
from findnemo.metrics.copies import compare_images
from findnemo.metrics.kind import is_memory
from findnemo.mitigation import MITIGATIONS, Case, canonical, name_and_options, typed_options
from findnemo.mitigation.neurons import drawn_neurons
from findnemo.models import Model
from findnemo.neurons import NeuronSet
from findnemo.passes import counting
from findnemo.prompts import Prompt
from findnemo.runs._same import require_same
from findnemo.runs.audit import not_memorized
from findnemo.runs.calibrating import as_published
from findnemo.runs.changing import BEGAN, CHANGEABLE
from findnemo.runs.ordinary import ordinary
from findnemo.runs.results import Localized
from findnemo.runs.stages import Crew, Progress, Stage, no_progress, run_stage
from findnemo.runs.standing import neurons_of, treated_as_memory
from findnemo.runs.store import Caption, Run, settings_of
from findnemo.runs.table import ask_all
from findnemo.runs.work import StageAnswer, Tools, Work, attempted, commit, done_in, each, keep
from findnemo.runs.workers import Event, Pool, Serial, Unit, never
from findnemo.runs.worklist import groups, list_open
from findnemo.runtime.plugins import answering
from findnemo.seeds import FRESH
from findnemo.verification import RANDOM

Typed = TypeVar("Typed", Caption, Prompt)

NONE = "none"  # no mitigation: the row that all others are compared with
NEMO = "nemo"  # the neurons of the listing, as published
DRAWS = {f"random-{k}": k for k in range(1, RANDOM + 1)}
LIKE_NEMO = (NEMO, *DRAWS)  # methods that need NeMo's neurons
SWITCHED = ("neurons", *LIKE_NEMO)  # methods that switch neurons off
STAGE = "compare:"  # prefix of stages in the run store; the name of a mitigation follows
LISTING = "listing"  # the stage of NeMo's neurons
COSTLY = ("noise", "sail")  # hundreds of evaluations an image: compared only on request
ACROSS = 6  # pictures in a row of a sheet
REFERENCES = 8  # captions that are not memorized, for methods that need a reference


def methods(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """The mitigations to compare, `none` first; by default all usable ones except COSTLY.

    A name may give hyperparameters other than the published ones: `embedding:target=3`. Each
    mitigation comes once, however its options are written. Raises InputError naming a mitigation or
    option that is unknown, or a mitigation that cannot be used.
    """
    usual = (name for name in MITIGATIONS.usable() if name not in COSTLY)
    given = [name for name in map(str.strip, usual if names is None else names) if name != NONE]
    wanted = (canonical(name, MITIGATIONS.require(name_and_options(name)[0])) for name in given)
    return (NONE, *dict.fromkeys(wanted))


def compare(
    work: Work,
    names: Sequence[str] | None = None,
    progress: Progress = no_progress,
    pool: Pool | None = None,
    stop: Callable[[], bool] = never,
    limit: int | None = None,
    captions: Sequence[Caption] | None = None,
) -> None:
    """Make the images of every memorized caption under each mitigation, judge them, and record the
    result with its cost.

    Answers that the run holds are not computed again. The first image of each method is kept in
    `compare/`. A method that fails on a caption is recorded as failed with the reason.

    `limit`: only so many captions (`in_turn`). `captions`: only these. `pool`: the workers; without
    one, this process. Once `stop` returns True, nothing more is begun.

    Raises MismatchError if the model, with autoencoder and sampler, is not the run's.
    """
    wanted = methods(names)
    run = work.run
    crew = Crew(pool or Serial(work.model), progress, stop)
    stage_of = stage_in(apart(work))
    stages = [stage_of + name for name in wanted]
    require_same(run, work.model, pictures=True)
    ask_all(run)
    if captions is None:
        captions = in_turn(compared_captions(run.captions(stage="detect")), limit)
    typed = f"a.caption IN ({', '.join(str(c.id) for c in captions)})"
    if {name_and_options(name)[0] for name in wanted} & set(LIKE_NEMO) and not _is_nemo(work):
        _list_nemo(work, typed, crew)
        if stop():
            return
    count = len(stages) * len(captions)
    named = ", ".join("?" * len(stages))
    answered = f"a.status = 'done' AND a.stage IN ({named}) AND {typed}"
    ((done,),) = run.query(f"SELECT COUNT(*) FROM results AS a WHERE {answered}", stages)
    list_open(run, "compare", stages, extra=typed)
    reference = tuple(ordinary(run, REFERENCES) or not_memorized(run, REFERENCES))
    step = partial(_compared, reference=reference, **work.tools)
    units = _units(work, stages)
    stage = Stage("compare", step, units, count - done, partial(_commit, run), count, done)
    run_stage(stage, *crew)


def _commit(run: Run, events: Sequence[Event]) -> int:
    """Write the pictures and figures of what became known; return the number of methods."""
    answers = []
    for case, found, seconds in done_in(events):
        each_of = [found] * len(case.stages) if isinstance(found, StageAnswer) else found
        answers += [
            (case.caption, stage, answer, seconds / len(each_of))
            for stage, answer in zip(case.stages, each_of, strict=True)
        ]
    return keep(run, answers)


def _is_nemo(work: Work | Tools) -> bool:
    """Whether the run's own search is NeMo: the listing once, by a published score, with no limit
    on the impact.
    """
    plan = work.plan
    pairs = work.calibration.settings.pairs
    return pairs == "largest" and plan.search == LISTING and plan.max_impact is None


def _list_nemo(work: Work, typed: str, crew: Crew) -> None:
    """Run the listing on every compared caption for which the run has no result of it."""
    run = work.run
    captions, many = list_open(run, "compare", [LISTING], extra=typed)
    published = as_published(run, crew.pool, work.calibration, crew.progress)
    step = partial(each, do=_listed, alone=True, **replace(work, calibration=published).tools)
    units = (Unit(tuple((c, ()) for c in group)) for group in groups(run))
    stage = Stage(LISTING, step, units, many, partial(commit, run, LISTING), captions)
    run_stage(stage, *crew)


def _listed(tools: Tools, caption: Caption) -> StageAnswer:
    """The neurons that the listing finds for a caption."""
    return StageAnswer(localize(tools.model, caption.text, tools.calibration, LISTING).to_json())


def nemo_of(work: Work | Tools, caption: Caption) -> NeuronSet | None:
    """NeMo's neurons of a caption: those of the listing, without any that verification added.

    None where the run has no result of the listing.
    """
    if _is_nemo(work):
        return neurons_of(caption)
    found: Localized | None = caption.typed_result(LISTING)
    return None if found is None else found.neurons


@dataclass(frozen=True)
class Comparison:
    """What a worker gets: a caption, the stages of the methods to try, its untouched images if
    known, and its training image.
    """

    caption: Caption
    stages: tuple[str, ...]
    before: list[Image.Image] | None
    originals: tuple[Image.Image, ...]


def _units(work: Work, stages: Sequence[str]) -> Iterator[Unit]:
    """One unit for each method of a caption; one for all its methods if untouched images must be
    made first.
    """
    for (caption,) in groups(work.run):
        open_ = tuple(stage for stage in stages if stage not in caption.results)
        before = kept_images(work, caption)
        originals = work.originals(caption)
        for part in [(stage,) for stage in open_] if before is not None else [open_]:
            yield Unit((Comparison(caption, part, before, originals),))


def _compared(
    model: Model, items: Sequence[Comparison], reference: tuple[str, ...], **known: Any
) -> list[list[StageAnswer]]:
    """The step: an answer for every method of every caption."""
    answers = []
    for case in items:
        tools = Tools(model, originals={case.caption.id: case.originals}, **known)
        before = comparison_images(tools, case.caption) if case.before is None else case.before
        answer = partial(_answer, tools, case.caption, before, reference)
        answers.append([attempted(model, partial(answer, stage)) for stage in case.stages])
    return answers


def _answer(
    tools: Tools,
    caption: Caption,
    before: list[Image.Image],
    reference: tuple[str, ...],
    stage: str,
) -> StageAnswer:
    name = stage.partition(":")[2]
    after = before
    more: dict[str, float] = {"evaluations": tools.plan.image_settings.passes}
    if name != NONE:
        with (
            answering(f"mitigation {name!r}"),
            counting(tools.model) as spent,
            mitigated(tools, caption, name, reference),
        ):
            once = spent.evaluations  # the cost of a caption, independent of the number of images
            began = time.perf_counter()
            after = comparison_images(tools, caption)
            seconds = time.perf_counter() - began
        more = {
            "evaluations": round((spent.evaluations - once) / len(after), 2),
            "image_seconds": round(seconds / len(after), 4),
            "once": once,
        }
    if name_and_options(name)[0] in SWITCHED:
        more["neurons"] = len(method_neurons(tools, caption, name_and_options(name)[0]))
    files = {picture_file(stage, caption.slug): png(after[0])}
    return StageAnswer(comparison_values(tools, caption, after, before) | more, files)


def picture_file(stage: str, slug: str) -> str:
    """The path in the run of a caption's picture under a method, by the stage of its result.

    >>> picture_file("compare@1a2b3c4d:delayed:tau=650", "0001-boat")
    'compare@1a2b3c4d/0001-boat/delayed-tau-650.png'
    """
    folder, _, name = stage.partition(":")
    return f"{folder}/{slug}/{file_stem(name)}.png"


def write_sheets(work: Work) -> None:
    """Write a picture sheet for each compared caption, next to its pictures: the training image if
    known, and the first image of each method under its name.
    """
    stage_of = stage_in(apart(work))
    order = {name: k for k, name in enumerate((NONE, *MITIGATIONS))}
    for caption in compared_captions(work.run.captions()):
        compared = (s.removeprefix(stage_of) for s in caption.results if s.startswith(stage_of))
        names = sorted(
            compared, key=lambda name: (order.get(name_and_options(name)[0], len(order)), name)
        )
        files = {n: work.run.path / picture_file(stage_of + n, caption.slug) for n in names}
        shown = [
            (_heading(name, caption.results[stage_of + name]), picture(file))
            for name, file in files.items()
            if intact_png(file)
        ]
        rows = [
            ([name for name, _ in row], [image for _, image in row])
            for row in (shown[k : k + ACROSS] for k in range(0, len(shown), ACROSS))
        ]
        if rows:
            page = png(sheet(caption.text, rows, work.original(caption)))
            write_all({work.run.path / f"{stage_of.rstrip(':')}/{caption.slug}.png": page})


def _heading(name: str, payload: Mapping[str, Any]) -> str:
    """A method on a picture sheet, with the share of the caption's images that are copies.

    >>> _heading("none", {"copies": 1.0}), _heading("nemo", {})
    ('no edit, copies 1.00', 'nemo')
    """
    title = "no edit" if name == NONE else name
    return f"{title}, copies {payload['copies']:.2f}" if "copies" in payload else title


def file_stem(name: str) -> str:
    """The file name of a method, valid on any file system.

    >>> file_stem("delayed:tau=650")
    'delayed-tau-650'
    """
    return name.replace(":", "-").replace("=", "-")


def compared_captions(captions: Iterable[Caption]) -> list[Caption]:
    """The captions on which mitigations are compared.

    If some have the type of a memory (VM, TM), all of those, found or missed: a method that needs
    neurons has none to switch off for a missed memory. Otherwise the localized captions.
    """
    some = [c for c in captions if is_memory(c.type) or len(neurons_of(c))]
    return [c for c in some if is_memory(c.type)] or localized_captions(some)


def in_turn(captions: Sequence[Typed], limit: int | None) -> list[Typed]:
    """`limit` captions in their order, the first ones of each type: as many of every type of memory
    as there are, then others.

    More captions with a higher limit hold those with a lower one.

    >>> from findnemo.prompts import Prompt
    >>> table = [Prompt(str(k), k, kind) for k, kind in enumerate(["VM", "VM", "VM", "TM", None])]
    >>> [prompt.text for prompt in in_turn(table, 3)]
    ['0', '1', '3']
    """
    seen: Counter[str | None] = Counter()
    ranked = []
    for place, caption in enumerate(captions):
        ranked.append((not is_memory(caption.type), seen[caption.type], place))
        seen[caption.type] += 1
    return [captions[place] for place in sorted(place for *_, place in sorted(ranked)[:limit])]


def localized_captions(captions: Iterable[Caption]) -> list[Caption]:
    """The captions with neurons.

    If some have the type of a memory (VM, TM), only those: the threshold is wrong about the others.
    Otherwise, if there are any, the captions whose images are not known to be no copies
    (`standing.treated_as_memory`).
    """
    found = [c for c in captions if len(neurons_of(c))]
    memories = [c for c in found if is_memory(c.type)]
    return memories or [c for c in found if treated_as_memory(c)] or found


def kept_images(work: Work, caption: Caption) -> list[Image.Image] | None:
    """The images of a caption without mitigation, None where they are missing or damaged.

    They are those of verification if made with the present settings, or those of other settings
    (`apart`).
    """
    same = settings_of(work.run)["image_settings"] == work.plan.image_settings.to_json()
    for of in [""] * same + [apart(work)] * bool(apart(work)):
        files = [work.run.path / name for name in untouched_files(work, caption, of)]
        if all(map(intact_png, files)):
            return [picture(file) for file in files]
    return None


def untouched_files(work: Work, caption: Caption, of: str) -> list[str]:
    """Paths in the run of a caption's images without mitigation, by settings `of` (`apart`)."""
    folder = f"images{of}/{caption.slug}"
    return [f"{folder}/before-{k:02d}.png" for k in range(len(samples(work)))]


def apart(work: Work) -> str:
    """A suffix for results whose images are made or judged otherwise than at the run's beginning.

    It is `@` and a digest of the number of images, their settings and the judges; empty for the
    run's first settings.
    """
    plan = work.plan
    settings = {
        "images": plan.images,
        "image_settings": plan.image_settings.to_json(),
        "judges": dict(plan.judges),
    }
    return _apart(work.run, settings)


def own_apart(run: Run) -> str:
    """The suffix `apart` for the present settings of a run, which may have changed since its
    beginning (`changing`).
    """
    return _apart(run, settings_of(run))


def _apart(run: Run, settings: Mapping[str, Any]) -> str:
    began = run.meta(BEGAN) or settings_of(run)
    mine, theirs = ({name: each.get(name, {}) for name in CHANGEABLE} for each in (settings, began))
    if mine == theirs:
        return ""
    return "@" + hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()[:8]


def stage_in(apart: str) -> str:
    """The prefix of stages for a suffix `apart`; the name of a method follows.

    >>> stage_in(""), stage_in("@1a2b3c4d")
    ('compare:', 'compare@1a2b3c4d:')
    """
    return STAGE.replace(":", f"{apart}:")


def failed_methods(run: Run) -> dict[int, str]:
    """Row -> why mitigations failed on that caption, under the present settings of a run."""
    stage_of = stage_in(own_apart(run))
    told = {
        caption.row: "; ".join(
            f"{stage.removeprefix(stage_of)}: {reason}"
            for stage, reason in caption.failed.items()
            if stage.startswith(stage_of)
        )
        for caption in run.captions()
    }
    return {row: reasons for row, reasons in told.items() if reasons}


def samples(work: Work | Tools) -> range:
    """The seeds of all compared images: those of verification, at least two."""
    return range(FRESH, FRESH + max(work.plan.images, 2))


def mitigated(
    work: Work | Tools, caption: Caption, name: str, reference: tuple[str, ...] = ()
) -> AbstractContextManager[None]:
    """The context in which images of a caption are made under a mitigation.

    Raises InputError if the mitigation needs NeMo's neurons and the run has none.
    """
    name, written = name_and_options(name)
    options = typed_options(name, MITIGATIONS[name], written)
    if name in SWITCHED:
        return deactivate(work.model, method_neurons(work, caption, name), **options)
    seed = work.plan.image_settings.seed
    case = Case(caption.text, neurons_of(caption), seed, reference)
    return MITIGATIONS[name](work.model, case, **options)


def method_neurons(work: Work | Tools, caption: Caption, name: str) -> NeuronSet:
    """The neurons that a method of SWITCHED switches off: the run's, NeMo's, or random ones.

    Random neurons are as many in each layer as NeMo's and none of NeMo's. If NeMo's are more than
    half of a layer, all its other neurons are drawn. Raises InputError if NeMo's neurons are not
    known.
    """
    if name not in LIKE_NEMO:
        return neurons_of(caption)
    found = nemo_of(work, caption)
    if found is None:
        raise InputError(
            f"{name} needs NeMo's neurons: {caption.failed.get(LISTING, 'no search was made')}"
        )
    if name == NEMO:
        return found
    case = Case(caption.text, found, work.plan.image_settings.seed)
    return drawn_neurons(work.model, case, DRAWS[name], few=True)


def comparison_images(work: Work | Tools, caption: Caption) -> list[Image.Image]:
    """Images of a caption with the edits that are in force, one for each seed of the comparison."""
    return generate(work.model, caption.text, samples(work), work.plan.image_settings)


def comparison_values(
    work: Work | Tools, caption: Caption, after: list[Image.Image], before: list[Image.Image]
) -> dict[str, Any]:
    """How the images of a caption compare with those without mitigation: medians over the seeds."""
    judges = replace(work.judges, original=work.original(caption))
    values = compare_images(caption.text, before, after, judges)
    return {"images": len(after)} | {
        key.removesuffix("_after"): round(value, 4)
        for key, value in values.items()
        if not key.endswith("_before")
    }
