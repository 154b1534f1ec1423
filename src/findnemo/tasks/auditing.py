"""Detect, localize, audit: the commands of the main path, for Python."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from findnemo import demo
from findnemo.errors import InputError
from findnemo.runs import Run
from findnemo.tasks.fine_tunes import audit_fine_tune
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import at_work, place_of, warn_unjudged
from findnemo.tasks.options import (
    Captions,
    Detecting,
    FineTune,
    Localizing,
    Output,
    Pictures,
    Workers,
)
from findnemo.tasks.path import PATH, Request, log, output_of, perform, ready
from findnemo.tasks.ranking import is_ordered


def detect(
    model: Any,
    prompts: Any = None,
    out: str | Path | Output = "findnemo-run",
    detecting: Detecting = Detecting(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Run:
    """Find the captions of a table that are over the threshold, in a run directory that other tasks
    continue. The captions are suspected, because no image is looked at.

    Returns the run, open for reading.
    """
    request = Request(model, prompts, output_of(out), PATH[:1], detecting)
    return _go(request, workers, listener)


def localize(
    model: Any,
    prompts: Any = None,
    out: str | Path | Output = "findnemo-run",
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Run:
    """Find the captions of a table that are over the threshold, and the neurons that hold them.

    Returns the run, open for reading.
    """
    request = Request(model, prompts, output_of(out), PATH[:2], detecting, localizing)
    return _go(request, workers, listener)


def audit(
    model: Any,
    prompts: Any = None,
    out: str | Path | Output = "findnemo-run",
    detecting: Detecting = Detecting(),
    localizing: Localizing = Localizing(),
    pictures: Pictures = Pictures(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Run:
    """Audit a table of captions: calibrate, detect, localize, verify, report.

    What `findnemo audit` does.

    `model`: a place as for `findnemo.load`, a `Source`, a loaded model or a pipeline. `prompts`: a
    file, a list of captions, or `Captions` with a column, a limit or a shard; 'demo' brings its
    own. A `FineTune` instead asks what the model has learned of its training pictures. `out`: the
    run directory, or `Output`. The same call continues where it stopped. Returns the run, open for
    reading. Raises InputError for options that do not fit, before any work, and MismatchError if
    `out` was made with others.

        run = findnemo.audit("demo", out="run")
        for caption in run.captions():
            print(caption.text, findnemo.runs.standing(caption))
    """
    output = output_of(out)
    if isinstance(prompts, FineTune):
        if is_ordered(detecting):
            raise InputError(
                "--budget and --like put a table of captions in order: leave them out with"
                " --train-images"
            )
        return audit_fine_tune(
            model, prompts, output, detecting, localizing, pictures, workers, listener
        )
    request = Request(model, prompts, output, PATH, detecting, localizing, pictures)
    return _go(request, workers, listener)


def audit_demo(
    model: str = "demo",
    prompts: Any = None,
    out: str | Path | Output = "findnemo-demo",
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Run:
    """Audit a shipped model with its own calibration (5 % false alarms).

    What `findnemo demo` does. `model`: 'demo', or 'demo-natural', which memorized by ordinary
    fine-tuning. `prompts`: as for `audit`, by default the model's own captions. Returns the run,
    open for reading. Raises InputError for any other model.

        run = findnemo.tasks.audit_demo(prompts=findnemo.tasks.Captions(limit=4), out="quick")
    """
    if model not in demo.MODELS:
        raise InputError(f"{model!r} is no shipped model: use one of {', '.join(demo.MODELS)}")
    detecting = Detecting(calibration=demo.calibration(model, "findnemo"))
    return audit(model, prompts, out, detecting, workers=workers, listener=listener)


def audited_of(tuned: FineTune, table: Captions) -> Captions | FineTune:
    """What to audit, by the options of a fine-tune and of a table beside each other: the captions,
    or with training pictures the fine-tune.

    The table's captions are then further ones, all of them; its column and limit are those of the
    captions of the pictures. Raises InputError for an option that does nothing with, or without,
    training pictures.

    >>> audited_of(FineTune("photos"), Captions("further.txt", limit=8)).limit
    8
    """
    if tuned.train_images is None:
        for field in fields(FineTune):
            if getattr(tuned, field.name) != field.default:
                raise InputError(f"--{field.name.replace('_', '-')} goes with --train-images DIR")
        return table
    if table.shard is not None:
        raise InputError("--shard does nothing with --train-images: leave one of them out")
    prompts = None if table.prompts is None else replace(table, limit=None)
    return replace(tuned, prompts=prompts, column=table.column, limit=table.limit)


def _go(request: Request, workers: Workers, listener: Listener) -> Run:
    asked = ready(request, listener)
    if "verify" in asked.stages and asked.plan.images:
        warn_unjudged("audit", place_of(request.model), asked.plan.judges, listener)
    with at_work(request.model, workers, listener) as pool:
        run = perform(asked, pool, listener)
    log(run, request.output, listener)
    return run
