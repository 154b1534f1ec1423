"""Score the members of a suite into a results file; existing results are not computed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from findnemo.benchmark.files import read_json
from findnemo.benchmark.members import demo_member, open_member, open_suite, train_member
from findnemo.benchmark.methods import METHODS, Method
from findnemo.benchmark.natural import (
    NATURAL_VERSION,
    NaturalMember,
    natural_demo,
    natural_folders,
    open_natural,
)
from findnemo.benchmark.plan import SEEDS, SUITE_VERSION
from findnemo.benchmark.results import Results
from findnemo.benchmark.scoring import Progress, Result, answers, score_member
from findnemo.benchmark.training import Recipe
from findnemo.benchmark.truth import Member
from findnemo.errors import InputError
from findnemo.runtime.threads import suited, threads

SAVE_EVERY = 5.0  # seconds


def methods_named(names: Iterable[str] | None) -> dict[str, Method]:
    """Methods by name, by default all. Raises InputError for an unknown name.

    >>> list(methods_named(["z-score"]))
    ['z-score']
    """
    wanted = list(METHODS if names is None else names)
    unknown = [name for name in wanted if name not in METHODS]
    if unknown:
        raise InputError(f"method {unknown[0]!r} is not known: use {', '.join(METHODS)}")
    return {name: METHODS[name] for name in wanted}


def read_answers(path: Path | None) -> dict[str, Any]:
    """Read the answers of a user's own method, as JSON. Raises InputError naming the file."""
    if path is None:
        return {}
    values: dict[str, Any] = read_json(
        path, dict[str, Any], "is not JSON with the answers of a method", {}
    )
    answers(values, "")
    return values


def train(
    suite: Path,
    seeds: Sequence[int] = SEEDS,
    recipe: Recipe | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Train the missing models of a suite one after the other; an interrupted training resumes."""
    for seed in seeds:
        train_member(suite / f"seed{seed}", seed, recipe, report)


def run(
    out: Path,
    suite: Path | None = None,
    methods: Mapping[str, Method] | None = None,
    given: Mapping[str, Any] | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    natural: bool = False,
    number: int | None = None,
) -> Results:
    """Score the demo model, or the trained models of a `suite`, into the file `out`.

    Results that the file holds are kept. `natural`: suite 2, the shipped `demo-natural` or the
    members in the folder `suite`. `number`: of threads, by default as many as suit a model.
    `given`: answers of a user's own method, see `answers`. Raises InputError if `out` or the suite
    is something else.
    """
    methods = METHODS if methods is None else methods
    version = version_of(natural)
    results = Results.load(out, version) if out.exists() else Results(suite=version)
    for member in _members(suite, natural):
        own = answers(given, member.name) if given else {}
        with threads(number or suited(member.model.denoiser, member.model.latent_shape)):
            results = results.with_member(member)
            results = _scored(results, member, {**methods, **own}, limit, out, progress)
    return results


def version_of(natural: bool) -> str:
    return NATURAL_VERSION if natural else SUITE_VERSION


def _members(suite: Path | None, natural: bool) -> Iterator[Member | NaturalMember]:
    if suite is None:
        yield natural_demo() if natural else demo_member()
    elif natural:
        yield from map(open_natural, natural_folders(suite))
    else:
        yield from map(open_member, open_suite(suite))


def _scored(
    results: Results,
    member: Member | NaturalMember,
    methods: Mapping[str, Method],
    limit: int | None,
    out: Path,
    progress: Progress | None,
) -> Results:
    done = results.done()
    saved = time.monotonic()
    new: list[Result] = []
    member.model.pipeline.set_progress_bar_config(disable=True)

    def is_done(method: str, caption: str) -> bool:
        return (member.name, method, caption) in done

    try:
        for result in score_member(member, methods, limit, is_done, progress):
            new.append(result)
            if time.monotonic() - saved > SAVE_EVERY:
                results.plus(new).save(out)
                saved = time.monotonic()
    finally:
        results = results.plus(new) if new else results
        results.save(out)
    return results
