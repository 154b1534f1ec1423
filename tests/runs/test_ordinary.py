"""Captions that the table of a run calls no memories."""

from __future__ import annotations

import pytest

from findnemo.metrics.kind import ORDINARY, is_memory
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.runs.ordinary import ordinary

KINDS = (*ORDINARY, "VM", "TM", "Not_Memorized", "non-memorized", " None ", "N/A", "memory", "1")


@pytest.fixture
def run_of(tmp_path):
    """A run whose captions have these types, each named by its place."""

    def make(*kinds):
        with Run.create(tmp_path / "run", {}) as run:
            run.add(Prompt(str(k), k, kind) for k, kind in enumerate(kinds, 1))
        return Run.open(tmp_path / "run")

    return make


def test_the_database_reads_types_as_python_does(run_of):
    with run_of(*KINDS) as run:
        wanted = [str(k) for k, kind in enumerate(KINDS, 1) if not is_memory(kind)]
        assert ordinary(run) == wanted
        assert ordinary(run, 2) == wanted[:2]


def test_captions_without_a_type_count_where_others_are_called_memories(run_of):
    with run_of("VM", None, "none", None) as run:
        assert ordinary(run) == ["2", "3", "4"]


def test_a_table_without_memories_says_nothing_of_captions_without_a_type(run_of):
    with run_of(None, "none", None) as run:
        assert ordinary(run) == ["2"]
