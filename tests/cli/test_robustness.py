"""Attempts and attacks in the terminal."""

from __future__ import annotations

import pytest
from _pack import ATTACK, ATTEMPTS, CELL

from findnemo.cli._common import stdout
from findnemo.cli._robustness import COUNTED, attempts_table, show_robustness


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(stdout, "_width", 120)


def cells_of(told: str, name: str) -> list[str]:
    (line,) = [line for line in told.splitlines() if line.startswith(name)]
    return line.removeprefix(name).split()


def test_attempts_count_for_an_edited_model_where_they_work_on_the_untouched_one(capsys):
    show_robustness(ATTEMPTS, None)
    told = capsys.readouterr().out
    assert cells_of(told, "seeds: fresh") == ["2/2", "0.09-0.91", "1/2", "0.09-0.91"]
    assert cells_of(told, "script: Greek") == ["0/2", "0.09-0.91", "tells", "nothing"]
    assert f"{COUNTED}; beside it the 95 % interval" in told


def test_of_more_models_than_fit_attempts_have_no_intervals(capsys):
    columns = ["untouched", "neurons off", "hardened", "ordinary, untouched"]
    stdout.print(attempts_table({"columns": columns, "table": {"a": {"untouched": CELL}}}))
    assert cells_of(capsys.readouterr().out, "a ") == ["1/2", "-", "-", "-"]


def test_an_attack_has_its_curves_by_steps_and_gaps_with_their_ends_below(capsys):
    show_robustness(None, ATTACK)
    told = capsys.readouterr().out
    assert cells_of(told, "own picture, untouched") == ["0.30", "0.90"]
    lines = told.splitlines()
    (gap,) = [k for k, line in enumerate(lines) if line.startswith("gap, neurons off")]
    assert lines[gap].split()[-2:] == ["+0.00", "+0.25"]
    assert [lines[gap + k].split() for k in (1, 2)] == [["-0.20", "+0.10"], ["+0.20", "+0.40"]]


def test_nothing_is_shown_of_what_was_not_tried(capsys):
    show_robustness(None, None)
    show_robustness({"columns": [], "table": {}}, {"curves": {}})
    assert capsys.readouterr().out == ""
