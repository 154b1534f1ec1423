"""The benchmark of localization methods, and the check of the demo model."""

from __future__ import annotations

from pathlib import Path

from findnemo.benchmark import Results, published, suite
from findnemo.benchmark.demo_check import CheckFigure
from findnemo.benchmark.demo_check import check_demo as check
from findnemo.errors import InputError
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import at_work, refuse_many
from findnemo.tasks.options import Scoring, Workers

PLANTED_ONLY = (
    "--train and --kinds are of planted memories: leave --natural out; recipes/natural/"
    " makes natural members"
)


def benchmark(
    out: str | Path = "findnemo-benchmark",
    scoring: Scoring = Scoring(),
    limit: int | None = None,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
) -> Results:
    """Score localization methods on models with planted memories, or on models that memorized by
    ordinary training.

    What `findnemo benchmark` does. `out`: the folder of `results.json` (`natural.json` for natural
    models), which keeps what is scored: the same call continues, also after an interrupt. `limit`:
    the first N memories, and as many other captions of each kind. Returns these results with the
    published ones of other models. Raises InputError for an unknown method, for a folder that holds
    no suite, and for options that do not go together.

    >>> from findnemo import tasks
    >>> tasks.benchmark(scoring=tasks.Scoring(published=True)).suite
    '1.1'
    """
    folder = None if scoring.suite is None else Path(scoring.suite)
    if scoring.train and folder is None:
        raise InputError(
            "--train makes the models of a suite: give its folder, --train --suite FOLDER"
        )
    if scoring.natural and scoring.train:
        raise InputError(PLANTED_ONLY)
    refuse_many(workers)
    others = published(suite.version_of(scoring.natural))
    if scoring.published:
        return others
    methods = suite.methods_named(scoring.methods.split(",") if scoring.methods else None)
    answers = suite.read_answers(scoring.add)
    if scoring.train and folder is not None:
        suite.train(folder, report=listener.say)
    file = Path(out) / ("natural.json" if scoring.natural else "results.json")
    own = suite.run(
        file, folder, methods, answers, limit, listener.progress, scoring.natural, workers.threads
    )
    return Results.over(own, others)


def check_demo(
    limit: int | None = None, workers: Workers = Workers(), listener: Listener = Listener()
) -> list[CheckFigure]:
    """Measure the figures of the demo model's card against their goals.

    What `findnemo demo --check` does. `limit`: only the first N memorized captions and N others.
    The check has failed if a figure is not `reached`.

        for figure in findnemo.tasks.check_demo(limit=4):
            print(figure.name, figure.value, figure.goal, figure.reached)
    """
    refuse_many(workers)
    with at_work("demo", workers, listener) as pool:
        return check(pool.model, listener.progress, limit)
