"""Real kills: forked children that do a piece of work and get SIGKILL, at random
moments or at chosen calls. Moments are counted in calls of functions, not in seconds.

The parent has loaded the model already, so a child costs its work only. Works for any work over a
run directory; for scale-out, give an `audit` that starts workers, and `victim` a function that
picks one of the child's children.
"""

from __future__ import annotations

import csv
import faulthandler
import io
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from _tiny import SMALL, made_loud, tiny_pipeline

import findnemo.report
from findnemo.files import writing
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, Work, audit, start, write_results
from findnemo.settings import Settings

Audit = Callable[[Path], None]  # of a run directory, from wherever it stands to its end
POINTS: dict[
    str, tuple[Any, str]
] = {  # places at which a child can kill itself, before or after the call
    "a row is put": (Run, "put"),
    "a statement": (Run, "query"),
    "a rename": (Path, "replace"),
    "a flush": (writing, "flush"),
    "results.csv": (csv.DictWriter, "writerows"),
    "the report": (findnemo.report, "render"),
}
TEXTS = ("a red fox", "a grey owl", "a tree", "the sea")
MOMENTS = "calls of functions"
PATIENCE = 300  # seconds, which only end a test that hangs
PASSING = {"run.sqlite-wal", "run.sqlite-shm"}  # what SQLite keeps beside an open database


def small_audit(stop: Callable[[], bool] = lambda: False) -> Audit:
    """An audit of four captions, one of them memorized, on 16 loud neurons."""
    model = made_loud(findnemo.load(tiny_pipeline(**SMALL)))
    settings = Settings(samples=3)
    made = findnemo.calibrate(model, ["hold out a", "hold out b"], settings=settings)
    scores = sorted(findnemo.score(model, text, settings=settings) for text in TEXTS)
    calibration = replace(made, tau=(scores[2] + scores[3]) / 2)
    plan = AuditPlan(images=1, image_settings=ImageSettings(steps=1), quality_prompts=1)
    prompts = [Prompt(text, row, "VM") for row, text in enumerate(TEXTS, 1)]

    def work(out: Path) -> None:
        with start(out, model, calibration, plan) as run:
            audit(Work(run, model, calibration, plan), prompts, stop=stop)
        finish(out)

    return work


def forked(work: Callable[[], None]) -> int:
    """A child process that does the work and ends, with status 0 if nothing was raised, and with
    that of SystemExit; its number. One that is not over after PATIENCE seconds (a lock that another
    thread of the parent held) says where it hangs and ends with status 1.
    """
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        faulthandler.dump_traceback_later(PATIENCE, exit=True, file=2)
        torch.set_num_threads(1)
        work()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(number: int) -> int:
    """Wait for a child: its exit status, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def victim(number: int) -> int:
    """The process to kill for a child: itself, the driver.

    Scale-out: one of its workers, by turns.
    """
    return number


def killed_after(moment: int, work: Callable[[], None]) -> bool:
    """Whether SIGKILL ended the work after so many calls of functions; False if it was done before.

    The child says that it has come so far and works on: the kill falls into whatever it does then.
    """
    there, says = os.pipe()

    def armed() -> None:
        count = 0

        def reached() -> None:
            nonlocal count
            count += 1
            if count == moment:
                os.write(says, b".")

        watch_calls(reached)
        work()

    number = forked(armed)
    os.close(says)
    os.read(there, 1)
    os.close(there)
    os.kill(
        victim(number), signal.SIGKILL
    )  # a child that has ended is there until it is waited for
    status = ended(number)
    assert status in (0, -signal.SIGKILL), "the work failed"
    return status != 0


def killed_at(point: str, call: int, after: bool, work: Callable[[], None]) -> bool:
    """The same at the n-th call of a function, before or after it."""

    def armed() -> None:
        count = 0

        def reached() -> None:
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(point, reached, after)
        work()

    status = ended(forked(armed))
    assert status in (0, -signal.SIGKILL), "the work failed"
    return status != 0


def watch(point: str, reached: Callable[[], None], after: bool = False) -> None:
    """Call `reached` at every call of a point, in this process for good."""
    owner, name = POINTS[point]
    real = getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        if not after:
            reached()
        result = real(*arguments, **options)
        if after:
            reached()
        return result

    setattr(owner, name, watched)


def watch_calls(reached: Callable[[], None]) -> None:
    """Call `reached` at every call of a Python function, in this thread for good."""
    sys.setprofile(lambda frame, event, argument: reached() if event == "call" else None)


def calls(work: Callable[[], None], note: Path) -> dict[str, int]:
    """How often the work comes by each point, and how many functions it calls (MOMENTS), told by a
    child.
    """

    def counting() -> None:
        counts: Counter[str] = Counter()
        for point in POINTS:
            watch(point, lambda point=point: counts.update([point]))
        every = 0

        def reached() -> None:
            nonlocal every
            every += 1

        watch_calls(reached)
        work()
        sys.setprofile(None)
        counts[MOMENTS] = every
        note.write_text(json.dumps(counts), encoding="utf-8")

    assert ended(forked(counting)) == 0
    return json.loads(note.read_text(encoding="utf-8"))


def finish(out: Path) -> None:
    """What a command writes at the end of an audit."""
    with Run.open(out) as run:
        write_results(run)
        findnemo.report.write(run)


def outcome(out: Path) -> dict[str, Any]:
    """All that a run says, without what time decides: rows of the store, results, bytes of
    pictures, names of files.
    """
    with Run.open(out) as run:
        captions = run.query("SELECT id, text, row, type, image FROM captions ORDER BY id")
        results = run.query(
            "SELECT caption, stage, status, payload FROM results ORDER BY caption, stage"
        )
        meta = run.query("SELECT key, value FROM meta WHERE key NOT LIKE 'holdout%' ORDER BY key")
        assert run.query("PRAGMA integrity_check") == [("ok",)]
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in PASSING]
    table = list(csv.DictReader(io.StringIO((out / "results.csv").read_text(encoding="utf-8"))))
    return {
        "captions": captions,
        "results": results,
        "meta": meta,
        "csv": [{k: v for k, v in row.items() if k != "seconds"} for row in table],
        "json": without_seconds(json.loads((out / "results.json").read_text(encoding="utf-8"))),
        "files": [str(path.relative_to(out)) for path in files],
        "pictures": {
            str(path.relative_to(out)): path.read_bytes() for path in files if path.suffix == ".png"
        },
    }


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(one) for key, one in value.items() if key != "seconds"}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


def kill_often(audit: Audit, folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill an audit so many times, half at random moments and half at random calls, each run
    directory until it is done.

    Every run that comes to its end must be what an undisturbed one is. Returns how often what was
    done: kills by kind, runs compared.
    """
    random = Random(seed)
    counts = Counter[str]()
    points = calls(lambda: audit(folder / "whole"), folder / "calls.json")
    moments = points.pop(MOMENTS)
    want = outcome(folder / "whole")
    for out in runs(folder):
        done = False
        while not done and counts.total() - counts["runs compared"] < kills:
            kind, killed = one_kill(random, points, moments, lambda out=out: audit(out))
            counts[kind] += killed
            done = not killed
        if not done:
            assert ended(forked(lambda out=out: audit(out))) == 0
        assert outcome(out) == want, out
        counts["runs compared"] += 1
        if not done:
            return counts
    raise AssertionError


def one_kill(
    random: Random, points: dict[str, int], moments: int, work: Callable[[], None]
) -> tuple[str, bool]:
    if random.random() < 0.5:
        return "at a moment", killed_after(random.randint(1, moments), work)
    point = random.choice(sorted(points))
    after = random.random() < 0.5
    kind = f"{'after' if after else 'before'} {point}"
    return kind, killed_at(point, random.randint(1, points[point]), after, work)


def runs(folder: Path) -> Iterator[Path]:
    number = 0
    while True:
        number += 1
        yield folder / f"run-{number}"
