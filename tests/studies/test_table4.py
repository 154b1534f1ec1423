"""Table 4: ablations, and the neurons of ordinary captions."""

from __future__ import annotations

import pytest
from _workshop import OTHERS, a_run, rows_of

from findnemo.localization import localize
from findnemo.prompts import Prompt
from findnemo.runs import audit
from findnemo.runs.ordinary import ordinary
from findnemo.studies import Bench, not_memorized, under_tau
from findnemo.studies.table4 import table4


@pytest.mark.slow
def test_table_4_counts_the_neurons_of_ordinary_captions_over_tau(low):
    mine, _, _ = low
    clean, _ = not_memorized(mine.run, [], mine.calibration)
    found = [len(localize(mine.model, text, mine.calibration, "listing").neurons) for text in clean]
    assert sum(n > 0 for n in found) == 2
    unrelated = table4(Bench(mine, clean, limit=1)).tables[1]
    ours = rows_of(unrelated)[("this run", "3")]
    assert ours["without a neuron"] == 1
    middle = sum(found) / 2
    assert ours["median neurons of the others"] == f"{middle:g} ± {abs(max(found) - middle):g}"
    assert "3 of this run, without the type of a memory" in unrelated.note
    assert unrelated.rows[1] == ["paper", 500, 442, "62 ± 27"]


def test_where_no_kind_is_known_the_count_is_left_out_in_words(work, tmp_path):
    mine = a_run(work, tmp_path / "run")
    with mine.run:
        captions = audit(
            mine, [Prompt(text, row) for row, text in enumerate(OTHERS, 1)], ("detect",)
        )
        assert ordinary(mine.run) == []
        bench = Bench(mine, [], limit=1, under=under_tau(captions))
        made = table4(bench).tables
        assert made[1].rows[0] == ["this run", None, None, None]
        assert "give some of which that is known, --unrelated FILE" in made[1].note
        assert "guidance in detection" in made[0].note
        assert list(bench.others) == under_tau(captions)
        assert "under tau" in bench.whence(bench.others)
