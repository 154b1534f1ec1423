"""A stage goes through its units, commits what becomes known, and says how far it is."""

from __future__ import annotations

from _pool import FakePool

from findnemo.runs import Unit
from findnemo.runs.stages import Crew, Stage, no_progress, run_stage


def doubled(model, items):
    return [2 * item for item in items]


class Doubling:
    """A stage that doubles numbers, of which others were doubled before."""

    def __init__(self, numbers, before=0):
        self.kept = {}
        units = (Unit((number,)) for number in numbers)
        total = before + len(numbers)
        self.stage = Stage("double", doubled, units, len(numbers), self.commit, total, before)

    def commit(self, events):
        for event in events:
            self.kept |= dict(zip(event.unit.items, event.answers, strict=True))
        return len(events)


def test_all_units_are_answered_and_every_commit_is_told():
    work = Doubling(range(7), before=3)
    told = []
    pool = FakePool(None, 3, seed=1)
    assert (
        run_stage(work.stage, *Crew(pool, lambda *known: told.append(known), lambda: False)) == 10
    )
    assert work.kept == {number: 2 * number for number in range(7)}
    done = [done for _, done, _ in told]
    assert (done[0], done[-1]) == (3, 10)
    assert done == sorted(done)
    assert {(name, total) for name, _, total in told} == {("double", 10)}


def test_once_it_is_asked_to_stop_nothing_more_begins_and_what_is_under_way_is_kept():
    work = Doubling(range(50))
    done = run_stage(work.stage, FakePool(None, 2), stop=lambda: len(work.kept) >= 4)
    assert 4 <= done == len(work.kept) < 10


def test_a_stage_without_units_is_done_at_once():
    told = []
    work = Doubling([], before=5)
    assert run_stage(work.stage, FakePool(None), lambda *known: told.append(known)) == 5
    assert told == [("double", 5, 5)]
    assert run_stage(Doubling([]).stage, FakePool(None), no_progress) == 0
