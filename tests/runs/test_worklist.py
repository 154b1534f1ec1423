"""Groups of captions that share passes: told by their ids, whatever is answered already."""

from __future__ import annotations

import pytest

from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.runs.table import enter
from findnemo.runs.worklist import groups, list_open

MEMORIZED = (1, 2, 3, 5, 6, 9)


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        enter(run, [Prompt(f"caption {k}", k) for k in range(1, 11)])
        run.record_all(
            (k, "detect", {"memorized": k in MEMORIZED, "score": 0.9 - k / 100}, 0.0, None)
            for k in range(1, 11)
        )
        yield run


def members(run, **options):
    count = list_open(run, "localize", **options)
    return count, [tuple(c.id for c in group) for group in groups(run, options.get("size", 1))]


def test_groups_are_of_those_that_a_stage_concerns_within_blocks_of_ids(run):
    count, found = members(run, size=2, within=4)
    assert count == (6, 4)
    assert sorted(found) == [(1, 2), (3,), (5, 6), (9,)]
    assert found[0] == (9,)  # the one of the lowest score is begun first


def test_a_group_is_whole_where_a_part_of_it_is_answered(run):
    run.record_all([(k, "localize", {}, 0.0, None) for k in (1, 5, 6)])
    count, found = members(run, size=2, within=4)
    assert count == (3, 3)
    assert sorted(found) == [(1, 2), (3,), (9,)]


def test_what_shares_no_passes_is_single(run):
    count, found = members(run)
    assert count == (6, 6)
    assert sorted(found) == [(k,) for k in MEMORIZED]
