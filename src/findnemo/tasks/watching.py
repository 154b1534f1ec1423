"""Watch a directory of checkpoints while a training writes them, and judge each new one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from findnemo.errors import InputError, MismatchError, ModelError, StoppedError
from findnemo.files.writing import atomic_write
from findnemo.models import of_strength
from findnemo.runs.fine_tunes import summary, write_table
from findnemo.runs.store import WATCHED
from findnemo.runs.tuned import newest_copies
from findnemo.tasks.fine_tunes import Looks
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import OpenModel
from findnemo.tasks.options import Detecting, FineTune, Pictures, Source, Workers
from findnemo.tasks.tuned_input import Candidate, candidates, check, material

POLL = 5.0  # seconds between two looks at the directory


def watch(
    model: Any,
    tuned: FineTune,
    out: str | Path = "findnemo-run",
    pictures: Pictures = Pictures(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
    patience: float | None = None,
    stop_at_copies: bool = False,
) -> Iterator[dict[str, Any]]:
    """Judge each checkpoint of a training as it appears; yield the results so far after each, as
    `runs.fine_tunes.summary` gives them.

    `model`: the base, with the directory of checkpoints as its `lora`, or as `tuned.tuned_models`. A
    checkpoint is judged once its files no longer grow. Ends after `patience` seconds without a new
    one, when the listener says stop, or with `stop_at_copies` after the first one that gives copies
    (`runs.tuned.newest_copies`). `out` keeps images and results (`training.json`,
    `training.csv`); a later audit with the same `out` continues from there. Raises InputError for
    options that do not fit.

        for about in watch(Source("base", lora="checkpoints"), FineTune("photos"), "run"):
            print(about["variants"][-1]["name"], about["variants"][-1]["verdict"])
    """
    source = model if isinstance(model, Source) else Source(str(model))
    check(source, tuned)
    directory = Path(str(tuned.tuned or source.lora))
    if not directory.is_dir():
        raise InputError(
            f"{directory} is not a directory: give the one that checkpoints are written to"
        )
    given = material(source, tuned, Detecting(), pictures, listener)
    for text in given.notes:
        listener.warn(text)
    root = Path(out)
    try:
        with OpenModel(workers, listener) as open_model:
            looks = Looks(given, root, open_model, listener)
            base = looks.at(Candidate("base", replace(source, lora=None)), None)
    except StoppedError:
        return
    variants = [base]
    for one in new_candidates(source, tuned, listener, patience):
        listener.say(f"images of {one.name}")
        try:
            with open_model:  # closed while it waits: a training needs the memory
                variants.append(looks.at(one, base))
        except StoppedError:
            return
        except (InputError, MismatchError, ModelError) as problem:
            listener.warn(f"{one.name}: {problem}; it is tried again when it changes")
            continue
        about = summary(given.subject, variants, one.name, given.root, given.notes)
        data, table = (root / name for name in WATCHED)
        with atomic_write(data) as part:
            part.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
        write_table(about, table)
        yield about
        if stop_at_copies and newest_copies(about):
            return


def new_candidates(
    source: Source, tuned: FineTune, listener: Listener, patience: float | None
) -> Iterator[Candidate]:
    """The complete candidates as they appear, and again after they change."""
    given: dict[str, int] = {}
    sizes: dict[str, int] = {}
    since = time.monotonic()
    while not listener.stop():
        now = {one.name: (one, _size(one)) for one in _tuned_models(source, tuned)}
        # without bytes it does not exist yet, or no longer
        new = {name: both for name, both in now.items() if both[1] not in (0, given.get(name))}
        whole = [both for name, both in new.items() if sizes.get(name) == both[1]]
        sizes = {name: size for name, (_, size) in new.items()}
        for one, size in whole[:1]:
            given[one.name] = size
            yield one
            since = time.monotonic()
        if not whole:
            if patience is not None and not new and time.monotonic() - since >= patience:
                return
            time.sleep(POLL)


def _tuned_models(source: Source, tuned: FineTune) -> list[Candidate]:
    """The tuned models in the directory; none while it is empty."""
    try:
        return candidates(source, tuned)[1:]
    except InputError:
        return []


def _size(one: Candidate) -> int:
    """Bytes of the files of a candidate; 0 if they are gone."""
    file = Path(of_strength(str(one.source.lora or one.source.place))[0])
    files = [file, *file.rglob("*")] if file.is_dir() else [file]
    with suppress(OSError):  # a file removed in the meantime has no size
        return sum(path.stat().st_size for path in files if path.is_file())
    return 0
