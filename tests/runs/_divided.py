"""A small run whose captions share passes two by two, whole or divided among workers and shards."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from _audited import PLAN, PROMPTS, outcome

from findnemo.runs import Run, Work, answer, enter, start, write_results

HOLDOUT = [f"hold out {k}" for k in range(130)]


@contextmanager
def two_by_two() -> Iterator[None]:
    """Two captions share passes, on one thread as in workers: three groups."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.passes.deltas.GROUP", 2)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def run_with(out, model, calibration, pool=None, shard=None, prompts=PROMPTS):
    with start(out, model, calibration, PLAN, shard) as run:
        enter(run, prompts, shard, size=2)
        answer(Work(run, model, calibration, PLAN), pool=pool)
        write_results(run)
    return out


def everything(out: Path) -> dict:
    """Results, numbers of captions, files and the table of a run, to the
    last bit; without seconds.
    """
    with Run.open(out) as run:
        ids = run.query("SELECT id, text, row, type FROM captions ORDER BY id")
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)]
    files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.png"))}
    return outcome(out) | {"ids": ids, "csv": rows, "files": files}
