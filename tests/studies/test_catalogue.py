"""The list of studies: the paper's tables and figures, and what a run has for each."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from findnemo.errors import InputError
from findnemo.studies import STUDIES, catalogue
from findnemo.studies._making import make
from findnemo.studies.registry import NEEDS, WORK, chosen


def numbers(kind):
    """Which tables or figures of the paper have a study: `Figures 10 to 12` are three."""
    found = set()
    for entry in STUDIES.values():
        if entry.shows.startswith(kind):
            a, *b = map(int, re.findall(r"\d+", entry.shows.partition(",")[0]))
            found |= set(range(a, b[0] + 1)) if " to " in entry.shows else {a, *b}
    return found


def test_every_table_and_figure_with_numbers_has_a_study():
    assert numbers("Table") == {1, 2, 3, 4}
    assert numbers("Figure") == {2, *range(4, 21)}


@pytest.mark.parametrize("name", STUDIES)
def test_an_entry_names_a_function_and_things_that_a_run_can_have(name):
    entry = STUDIES[name]
    home = import_module(f"findnemo.studies.{entry.home}")
    assert callable(getattr(home, name))
    assert {*entry.needs, *entry.uses} <= set(NEEDS)
    assert {*entry.work}
    assert {*entry.work} <= set(WORK)
    assert not set(entry.needs) & set(entry.uses)


def test_the_list_says_what_a_run_has(bench, work):
    assert bench.stock == {
        "neurons": 3,
        "neurons off": 1,
        "types": 3,
        "others": 3,
        "ordinary": 3,
        "hold-out scores": 3,
        "training images": 3,
        "reference pictures": 0,
        "descriptor": 1,
        "CLIP": 1,
    }
    states = {row[0]: row[-1] for row in catalogue(bench.stock).rows}
    assert states["fig4"] == "ready"
    assert states["table1"] == "ready"
    assert states["fig5a"] == "ready, without reference pictures"


def test_what_a_run_lacks_is_listed_and_refused_alike(bench):
    poor = replace(bench, unrelated=(), under=())
    states = {row[0]: row[-1] for row in catalogue(poor.stock).rows}
    assert states["table3"] == "lacks others"
    assert states["fig13"] == "ready, without others"
    with pytest.raises(InputError, match="needs captions that are not memorized, 2 or more: there"):
        make("table3", poor)


def test_imported_statistics_have_no_scores(bench, work):
    made = replace(work.calibration, trajectories=torch.empty(0, 3))
    bare = replace(bench, work=replace(work, calibration=made))
    states = {row[0]: row[-1] for row in catalogue(bare.stock).rows}
    assert states["fig2a"] == "ready, without hold-out scores"


def test_a_mistyped_study_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"'tabel3' is not known: .*; did you mean table3\?"):
        chosen(["fig4", "tabel3"])
    with pytest.raises(InputError, match=r"'xyz' is not known: use all, fig2a,.*, utility$"):
        chosen(["xyz"])
