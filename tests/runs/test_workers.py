"""The dispatch policy: everything is answered once whoever dies, guilty items are set aside
alone, tasks grow and shrink with time.
"""

from __future__ import annotations

from collections import Counter

import pytest
from _audited import small_model
from _pool import FakePool
from hypothesis import given, settings
from hypothesis import strategies as st

from findnemo.errors import DeviceError, InputError
from findnemo.runs import Loader
from findnemo.runs.workers import (
    AIM,
    HOPELESS,
    STRIKES,
    Dispatch,
    Outcome,
    Serial,
    Unit,
    drive,
    in_order,
)


def square(model, items):
    return [x * x for x in items]


def units(groups):
    return [Unit(tuple(group)) for group in groups]


def told(pool, groups, **options):
    """What became of every item: an answer, or the reason for which it was set
    aside; each exactly once.
    """
    seen = {}
    for event in drive(
        pool, square, Dispatch(iter(units(groups)), len(groups), pool.size, pool.aim), **options
    ):
        answers = [event.aside] * len(event.unit.items) if event.aside else event.answers
        for item, answer in zip(event.unit.items, answers, strict=True):
            assert item not in seen
            seen[item] = answer
    return seen


GROUPS = st.lists(st.integers(1, 6), max_size=25).map(
    lambda sizes: [range(sum(sizes[:k]), sum(sizes[: k + 1])) for k in range(len(sizes))]
)


@given(
    GROUPS,
    st.integers(1, 5),
    st.integers(0, 1000),
    st.integers(0, 6),
    st.sampled_from([0.0, 1e-3, 10.0]),
)
@settings(max_examples=150, deadline=None)
def test_everything_is_answered_once_whoever_dies(groups, size, seed, deaths, aim):
    pool = FakePool(
        None, size, seed, deaths=min(deaths, STRIKES - 1), aim=aim
    )  # too few to look like somebody's fault
    assert told(pool, groups) == {x: x * x for group in groups for x in group}


@given(
    GROUPS,
    st.sets(st.integers(0, 60), max_size=4),
    st.integers(0, 1000),
    st.sampled_from([0.0, 10.0]),
)
@settings(max_examples=150, deadline=None)
def test_only_what_kills_workers_is_set_aside(groups, guilty, seed, aim):
    seen = told(FakePool(None, 3, seed, deadly=lambda item: item in guilty, aim=aim), groups)
    assert set(seen) == {x for group in groups for x in group}
    for item, answer in seen.items():
        assert (
            answer == item * item
            if item not in guilty
            else answer.startswith("set aside") and "killed" in answer
        )


def test_captions_that_die_together_only_are_answered_one_by_one():
    class Together(FakePool):
        def wait(self):
            ((_, task),) = self.under_way
            self.deadly = lambda item: len(task.units[0].items) > 1
            return super().wait()

    assert told(Together(None, 1), [[1, 2, 3], [4]]) == {1: 1, 2: 4, 3: 9, 4: 16}


def test_the_rest_of_a_group_is_answered_item_by_item():
    groups = []

    def step(model, items):
        groups.append(tuple(items))
        return [0] * len(items)

    pool = FakePool(None, 2, deadly=lambda item: item == 2, send=False)
    dispatch = Dispatch(iter(units([[1, 2, 3], [4, 5]])), 2, 2, 0.0)
    events = list(drive(pool, step, dispatch))
    assert sorted(groups) == [(1,), (3,), (4, 5)]
    assert sorted((e.unit.items, e.aside is None) for e in events) == [
        ((1,), True),
        ((2,), False),
        ((3,), True),
        ((4, 5), True),
    ]


def test_tasks_are_as_long_as_was_measured_and_single_at_the_end():
    dispatch = Dispatch((Unit((k,)) for k in range(1000)), 1000, workers=4, aim=AIM)
    sizes = []
    left = 1000
    while (task := dispatch.take()) is not None:
        sizes.append(len(task.units))
        left -= len(task.units)
        assert len(task.units) <= max(
            1, (left + len(task.units)) // 8
        )  # half of an equal share of what was left
        dispatch.settle(
            Outcome(task, tuple([0] for _ in task.units), tuple(0.5 for _ in task.units))
        )
    assert sizes[0] == 1
    assert max(sizes) == sizes[1] == AIM / 0.5
    assert sizes[-8:] == [1] * 8
    assert sum(sizes) == 1000


def test_long_units_are_handed_out_one_by_one():
    dispatch = Dispatch((Unit((k,)) for k in range(100)), 100, workers=2, aim=AIM)
    for _ in range(100):
        task = dispatch.take()
        assert len(task.units) == 1
        dispatch.settle(Outcome(task, ([0],), (2 * AIM,)))
    assert dispatch.take() is None
    assert dispatch.empty


def test_no_more_is_begun_than_workers_can_hold():
    read = []

    def source():
        for k in range(500):
            read.append(k)
            yield Unit((k,))

    pool = FakePool(None, 3)
    for done, _ in enumerate(drive(pool, square, Dispatch(source(), 500, 3, 0.0)), 1):
        assert len(read) - done <= 3
    assert (pool.most, len(read)) == (3, 500)


def test_stop_begins_nothing_more_and_waits_for_what_is_under_way():
    pool = FakePool(None, 2)
    seen = []
    for event in drive(
        pool,
        square,
        Dispatch(iter(units([[k] for k in range(50)])), 50, 2, 0.0),
        lambda: len(seen) >= 5,
    ):
        seen.append(event.unit.items[0])
    assert 5 <= len(seen) <= 5 + 2
    assert pool.flying == 0


@pytest.mark.parametrize(
    "pool", [Serial(None), FakePool(None, 4, seed=3), FakePool(None, 4, seed=3, deaths=STRIKES - 1)]
)
def test_answers_in_order_whoever_is_first(pool):
    asked = []
    ahead = 0

    def items():
        for k in range(200):
            asked.append(k)
            yield k

    for k, event in enumerate(in_order(pool, square, items(), ahead=4)):
        assert (event.unit.items, event.answers) == ((k,), [k * k])
        ahead = max(ahead, len(asked) - k)
    assert k == 199
    assert ahead <= (1 if pool.size == 1 else 4 * pool.size + 1)


def test_what_a_step_raises_in_this_process_is_raised():
    def broken(model, items):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(drive(Serial(None), broken, Dispatch(iter(units([[1]])), 1, 1, 0.0)))


def test_a_unit_is_itself_and_no_other():
    assert Counter([Unit((1,)), Unit((1,))]).most_common()[0][1] == 1


def test_where_every_caption_kills_its_workers_the_command_ends_with_the_reason():
    """A driver that does not fit the device, say: to go on would load models for
    days, and answer nothing.
    """
    seen = []
    events = drive(
        FakePool(None, 1, deadly=lambda item: True),
        square,
        Dispatch(iter(units([[k] for k in range(500)])), 500, 1, 0.0),
    )
    with pytest.raises(
        DeviceError, match=rf"the last {HOPELESS} captions were all set aside.*killed"
    ):
        any(seen.append(event) for event in events)
    assert len(seen) == HOPELESS


def test_a_live_pipeline_cannot_be_sent_to_workers():
    with pytest.raises(InputError, match="live"):
        Loader.of(small_model())
