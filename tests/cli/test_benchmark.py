"""The command `benchmark`: what it shows of results that are there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from _command import Result, cli

from findnemo.benchmark import NATURAL_VERSION, SUITE_VERSION, published, table
from findnemo.benchmark.planted_scoring import TRUTH
from findnemo.cli._benchmark import NATURAL, PLANTED, SHOWN, SHOWN_NATURAL, show
from findnemo.cli._common import stdout


def test_published_results_need_no_model_and_are_silent_when_quiet(tmp_path):
    asked = ("benchmark", "--published", "--out", tmp_path)
    assert cli(*asked, "--quiet") == Result(0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_an_interval_stands_below_its_mean(monkeypatch, capsys):
    monkeypatch.setattr(stdout, "_width", 120)
    every = published()
    results = replace(every, results=tuple(one for one in every.results if one.method == TRUTH))
    (part, own), *_ = table.apart(results).items()
    show(results, kinds=False)
    lines = capsys.readouterr().out.splitlines()
    above = next(k for k, line in enumerate(lines) if line.startswith(TRUTH))
    gone = table.rows(own)[TRUTH]["gone"]
    assert lines[above].split()[4] == f"{gone.value:.2f}" == "1.00"
    assert lines[above + 1].split()[2] == f"{gone.low:.2f}-{gone.high:.2f}"
    assert any(line.endswith(f"{part.capitalize()}. {PLANTED}") for line in lines)


def test_kinds_of_memories_are_planted_alone():
    refused = cli("benchmark", "--published", "--natural", "--kinds")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("error: ")


@pytest.mark.parametrize(
    ("suite", "shown", "note"),
    [(SUITE_VERSION, SHOWN, PLANTED), (NATURAL_VERSION, SHOWN_NATURAL, NATURAL)],
)
def test_a_table_of_published_results_fits_80_columns(suite, shown, note, monkeypatch, capsys):
    monkeypatch.setattr(stdout, "_width", 80)
    show(published(suite), kinds=False)
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if note not in line]
    assert max(map(len, lines)) <= 80
    assert note in told
    words = set(told.split())
    for head, _ in shown.values():
        assert set(head.split()) <= words, head
