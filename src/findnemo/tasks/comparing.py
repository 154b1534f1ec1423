"""Compare NeMo with other mitigations, make the paper's studies, and compare detectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from findnemo import demo, report
from findnemo.calibration import Calibration
from findnemo.errors import FindnemoError
from findnemo.files.writing import atomic_write
from findnemo.images import check_images
from findnemo.prompts import Prompt, PromptStream, PromptTable, read_training
from findnemo.runs import Run, Work, settings_of
from findnemo.runs.compare import compare as compare_run
from findnemo.runs.compare import in_turn, methods, write_sheets
from findnemo.runs.detectors import (
    Detectors,
    distinct_detectors,
    draw_pictures,
    results,
    run_detectors,
    start_detectors,
)
from findnemo.studies import (
    Bench,
    Reference,
    Study,
    Table,
    catalogue,
    not_memorized,
    stock,
    under_tau,
)
from findnemo.studies import study as make_studies
from findnemo.studies.registry import requested_studies as chosen_studies
from findnemo.studies.rows import judge_of
from findnemo.studies.table1 import costs, each
from findnemo.studies.table1 import table as table1_of
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import (
    at_work,
    beginning_of,
    captions_of,
    folder_of,
    holdout_of,
    images_of,
    judges_of,
    named_judges,
    open_work,
    place_of,
    read_table,
    refuse_shard,
    resume_work,
    source_of,
    table_of,
    warn_long,
    warn_missing,
    warn_unjudged,
)
from findnemo.tasks.options import (
    Captions,
    Comparing,
    Detecting,
    Output,
    Pictures,
    Studying,
    Workers,
)
from findnemo.tasks.path import (
    PATH,
    Request,
    go_on,
    is_begun,
    log,
    output_of,
    perform,
    ready,
    refuse_changed,
)

PER_TYPE = 4  # captions of each type in costly studies of the demo
# images a caption in studies: of the paper, and of a shipped model
IMAGES = 10
IMAGES_OF_DEMO = 4
QUALITY = 20  # captions whose images are compared with the demo's reference pictures
ORDINARY = 64  # ordinary captions of the demo that studies look at


def compare(
    model: Any,
    prompts: Any = None,
    out: str | Path | Output = "findnemo-compare",
    comparing: Comparing = Comparing(),
    detecting: Detecting = Detecting(),
    pictures: Pictures = Pictures(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Table:
    """Apply every mitigation to every memorized caption: Table 1 of Finding NeMo for a model.

    What `findnemo compare` does. In a directory that holds an audit, it uses the settings and the
    calibration of that run. It also writes tables to `out`, each as Markdown and CSV: this one
    (`table1`), the costs (`costs`), and the figures of each caption (`captions`). Raises InputError
    for an unknown mitigation, and MismatchError for options that the run was not made with.
    """
    output = output_of(out)
    place = Path(output.path)
    names = methods(comparing.mitigations.split(",") if comparing.mitigations else None)
    early = replace(output, report=False)
    asked = None
    given = captions_of(prompts)
    whole = replace(given, limit=None)
    table = None
    folder = None
    if is_begun(place):
        refuse_changed(place, detecting, pictures)
        with Run.open(place) as old:
            refuse_shard(old)
            model = source_of(old, model)
            named = settings_of(old)["judges"] | named_judges(pictures)
            pictured = old.names_pictures()
        if given.prompts is not None:
            table = _limited(table_of(whole, model, listener), given.limit)
            folder = folder_of(given)
    else:
        request = Request(model, whole, early, PATH, detecting, pictures=pictures)
        asked = ready(request, listener)
        asked = replace(asked, table=_limited(asked.table, given.limit))
        named = asked.plan.judges
        pictured = any(prompt.image for prompt in asked.table)
    source = place_of(model)
    warn_unjudged("compare", source, named, listener)
    if "descriptor" in named and not pictured and source not in demo.MODELS:
        listener.warn(
            "captions name no training images (column 'image'): Table 1 leaves out SSCD_orig"
        )
    with at_work(model, workers, listener) as pool:
        judges = judges_of(pool.model.source, named)
        if asked:
            run = perform(replace(asked, judges=judges), pool, listener)
        else:
            run = go_on(pool, table, folder, early, pictures, listener, judges)
        run.close()
        with resume_work(place, pool, judges) as work:
            if not listener.stop():
                compare_run(work, names, listener.progress, pool, listener.stop, given.limit)
            write_sheets(work)
            warn_missing(work.original, listener)
            clip = judge_of(work.run, work.plan.judges)
            table1 = table1_of(work.run, comparing.intervals, clip)
            for name, made in (
                ("table1", table1),
                ("costs", costs(work.run)),
                ("captions", each(work.run)),
            ):
                for ending, text in (("md", made.markdown()), ("csv", made.csv())):
                    with atomic_write(place / f"{name}.{ending}") as part:
                        part.write_text(text, encoding="utf-8")
            report.write(work.run)
            log(work.run, output, listener)
    return table1


def _limited(table: PromptTable | PromptStream, limit: int | None) -> PromptTable | PromptStream:
    """The captions of a table to compare on, each type of memory in turn (`in_turn`).

    Raises InputError for a limit under 1.
    """
    if limit is None:
        return table
    table.limit(limit)  # checks it
    distinct: dict[str, Prompt] = {}
    for prompt in table:
        distinct.setdefault(prompt.text, prompt)
    return PromptTable(table.source, tuple(in_turn(list(distinct.values()), limit)))


def study(
    names: str | Iterable[str],
    run: str | Path,
    out: str | Path | None = None,
    studying: Studying = Studying(),
    model: Any = None,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> dict[str, Study | FindnemoError]:
    """Make tables and figures of the paper from a run, in a folder (default: RUN/studies).

    What `findnemo study` does. `names`: "all", or some of `findnemo.studies.STUDIES`. Returns name
    -> study, or the error of a study that cannot be made. Studies that `listener.stop()` prevented
    are missing. Raises InputError for an unknown name.
    """
    wanted = chosen_studies(names.split(",") if isinstance(names, str) else names)
    with Run.open(run) as old:
        named = settings_of(old)["judges"] | named_judges(Pictures(clip=studying.clip))
        warn_unjudged("study", str(old.meta("source")), named, listener)
    with open_work(run, model, workers, listener) as (work, pool):
        own = work.model.source in demo.MODELS
        bench = Bench(
            as_studied(work, studying),
            _ordinary(work.run, work.calibration, studying, listener),
            studying.per_type or (PER_TYPE if own else None),
            listener.progress,
            under_tau(work.run.captions()),
            pool,
            listener.stop,
            reference_of(studying, own),
        )
        return make_studies(wanted, bench, Path(out) if out else Path(run) / "studies")


def as_studied(work: Work, studying: Studying) -> Work:
    """The run with the images and the CLIP of the studies; results of other settings are kept
    apart.

    Raises InputError for a sampler that the model does not have.
    """
    images = IMAGES_OF_DEMO if work.model.source in demo.MODELS else IMAGES
    plan = replace(work.plan, images=studying.images or max(images, work.plan.images))
    judges = work.judges
    if studying.sampler is not None:
        settings = replace(plan.image_settings, sampler=studying.sampler)
        check_images(work.model, settings)
        plan = replace(plan, image_settings=settings)
    if studying.clip is not None:
        plan = replace(plan, judges={**plan.judges, "clip": studying.clip})
        opened = judges_of(work.model.source, plan.judges, work.judges)
        judges = replace(work.judges, alignment=opened.alignment)
    return replace(work, plan=plan, judges=judges)


def studies(
    run: str | Path | None = None, studying: Studying = Studying(), listener: Listener = Listener()
) -> Table:
    """A table of the paper's tables and figures in order, with what each needs; for a run also with
    what it has and lacks.

    What `findnemo study --list` does. The model is not opened. Raises InputError for a directory
    that holds no audit.

    >>> from findnemo import tasks
    >>> tasks.studies().rows[2][:3]
    ['table1', 'Table 1', 'mitigations']
    """
    if run is None:
        return catalogue()
    calibration = beginning_of(run).calibration
    with Run.open(run) as old:
        judges = set(settings_of(old).get("judges") or ())
        if old.meta("source") in demo.MODELS:
            judges |= {"descriptor", "clip"}  # a shipped model has both
        ordinary = _ordinary(old, calibration, studying, listener)
        others = ordinary or under_tau(old.captions())
        pictures = len(reference_of(studying, old.meta("source") in demo.MODELS).pictures)
        return catalogue(stock(old, calibration, judges, ordinary, others, pictures))


def _ordinary(
    run: Run, calibration: Calibration, studying: Studying, listener: Listener
) -> list[str]:
    """Captions known not to be memorized: the run's, given ones, and a shipped model's own."""
    own = run.meta("source") in demo.MODELS
    given = []
    if studying.unrelated is not None:
        table = read_table(Captions(studying.unrelated, studying.column), listener)
        given = [p.text for p in table]
    given += demo.unrelated()[:ORDINARY] if own else ()
    clean, barred = not_memorized(run, given, calibration, demo.holdout() if own else ())
    if barred:
        listener.say(
            f"{barred} of the captions given are hold-out captions, or memories by the run's table:"
            " they are left out"
        )
    return clean


def reference_of(studying: Studying, own: bool) -> Reference:
    """The reference for the quality of images. `own`: whether a shipped model is studied."""
    place = studying.reference or (demo.REFERENCES if own else None)
    captions = studying.quality_captions or (QUALITY if own else Reference.captions)
    if place is None:
        return Reference((), studying.inception, captions)
    pictures = read_training(place, studying.column).pictures
    return Reference(pictures, studying.inception, captions)


def compare_detectors(
    model: Any,
    detectors: str | Iterable[str],
    prompts: Any = None,
    out: str | Path = "findnemo-detectors",
    holdout: Any = None,
    pictures: bool = False,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Detectors:
    """Run several detectors over one table, each with a threshold from hold-out captions.

    What `findnemo detect --detector` does. `detectors`: names of `findnemo.detection.DETECTORS`.
    `pictures`: also make saliency and mask pictures of the captions with a type.
    """
    names = distinct_detectors(detectors.split(",") if isinstance(detectors, str) else detectors)
    given = captions_of(prompts)
    table = read_table(given, listener) if given.prompts else table_of(given, model, listener)
    apart = holdout_of(Detecting(holdout=holdout), given.column, model, listener)
    clean = [prompt.text for prompt in apart]
    settings = images_of(model, Pictures(), 0)
    with (
        at_work(model, workers, listener) as pool,
        start_detectors(out, pool.model, settings) as run,
    ):
        warn_long(pool.model, table, listener)
        warn_long(pool.model, apart, listener, of="hold-out ")
        captions = run_detectors(
            run, table, clean, names, settings, pool, listener.progress, listener.stop
        )
        drawn = []
        if pictures and not listener.stop():
            drawn = draw_pictures(run, captions, settings, pool, listener.progress)
        return Detectors(results(run, captions, clean, names), captions, drawn)
