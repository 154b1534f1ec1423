"""The registry of studies: the tables and figures of the paper by name."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from findnemo.errors import InputError
from findnemo.studies import STUDIES
from findnemo.studies.registry import NEEDS, WORK, requested_studies


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


def test_a_mistyped_study_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match=r"'tabel3' is not known: .*; did you mean table3\?"):
        requested_studies(["fig4", "tabel3"])
    with pytest.raises(InputError, match=r"'xyz' is not known: use all, fig2a,.*, utility$"):
        requested_studies(["xyz"])
