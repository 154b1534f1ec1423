"""The tables of the command benchmark.

The command itself, and what it scores: tests/benchmark/test_command.py.
"""

from __future__ import annotations

import pytest

from findnemo.benchmark import NATURAL_VERSION, SUITE_VERSION, published
from findnemo.cli._benchmark import NATURAL, PLANTED, SHOWN, SHOWN_NATURAL, show


@pytest.mark.parametrize(
    ("suite", "shown", "note"),
    [(SUITE_VERSION, SHOWN, PLANTED), (NATURAL_VERSION, SHOWN_NATURAL, NATURAL)],
)
def test_a_table_of_published_results_fits_80_columns(
    suite, shown, note, wide_as_the_environment_says, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    show(published(suite), kinds=False)
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if note not in line]
    assert max(map(len, lines)) <= 80
    assert note in told
    words = set(told.split())
    for head, _ in shown.values():
        assert set(head.split()) <= words, head
