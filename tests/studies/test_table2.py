"""Table 2: seconds by algorithm."""

from __future__ import annotations

import pytest
from _workshop import cells

from findnemo.studies import Bench
from findnemo.studies.table2 import table2


def test_table_2_shows_them(work):
    (made,) = table2(Bench(work, [], limit=1)).tables
    at = {head: k for k, head in enumerate(made.columns)}
    total = next(row for row in made.rows if row[0] == "total")
    assert (total[at["VM, s, paper"]], total[at["TM, s, paper"]]) == ("15.68", "45.90")
    assert "the paper's Algorithm 2 takes one" in made.note


@pytest.mark.slow
def test_table_2_has_a_clock_for_the_text_encoder(made):
    _, *rows = cells(made.folder, "table2")
    assert rows[0][0] == "text encoder"
    assert "Alg. 2, out-of-distribution neurons" in [r[0] for r in rows]
