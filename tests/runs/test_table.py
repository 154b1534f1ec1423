"""Tables of any length enter a run whole or not at all, and are divided into shards."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from _audited import PROMPTS
from _pool import FakePool

from findnemo.errors import InputError
from findnemo.prompts import Prompt
from findnemo.runs import Run, Shard, counts, enter
from findnemo.runs.worklist import groups, list_open


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/0", "a/b", "1", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="give i/n"):
        Shard.of(text)


def test_a_table_enters_whole_or_not_at_all(tmp_path):
    def broken():
        yield from PROMPTS
        raise InputError("row 7")

    with Run.create(tmp_path / "run", {}) as run:
        with pytest.raises(InputError, match="row 7"):
            enter(run, broken())
        assert counts(run)["captions"] == 0
        entered = enter(run, [*PROMPTS, replace(PROMPTS[0], row=7)], limit=None)
        assert (entered.captions, entered.repeats, entered.some) == (6, 1, ((7, 1),))
        assert enter(run, PROMPTS, limit=2).captions == 2
        assert list_open(run, "detect", size=2) == (2, 1)
        assert [[c.id for c in group] for group in groups(run, 2)] == [[1, 2]]


def fake_stage(out, rows):
    """Peak of memory while a table enters and is answered by workers that do nothing."""
    table = (
        Prompt(f"caption number {k} of a long table of captions", k) for k in range(1, rows + 1)
    )
    tracemalloc.start()
    with Run.create(out, {"shard": "1/1"}) as run:
        enter(run, table)
        from functools import partial

        from findnemo.runs import Dispatch, Unit, drive
        from findnemo.runs.work import commit

        captions, count = list_open(run, "detect", size=32)
        units = (Unit(tuple((c, None) for c in group)) for group in groups(run, 32))
        for event in drive(
            FakePool(None, 4, send=False), partial(nothing), Dispatch(units, count, 4, 0.0)
        ):
            commit(run, "detect", [event])
        assert captions == rows
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def nothing(model, items):
    from findnemo.runs import StageAnswer

    return [
        StageAnswer({"memorized": False, "score": 0.1, "tau": 0.4, "evaluations": 2}) for _ in items
    ]


@pytest.mark.slow
def test_memory_is_the_same_for_five_thousand_captions_and_for_fifty_thousand(tmp_path):
    small, large = (fake_stage(tmp_path / str(rows), rows) for rows in (5_000, 50_000))
    assert large < 1.2 * small
    assert large < 2**20
