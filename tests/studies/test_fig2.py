"""Figure 2: how well the score tells memories from others, and z-scores of the first layer."""

from __future__ import annotations

import pytest
from _workshop import cells

import findnemo
from findnemo.studies import Bench
from findnemo.studies.fig2 import fig2a


def test_figure_2a_judges_memories_that_were_missed_too(low):
    mine, order, scores = low
    bench = Bench(mine, [order[0], order[1], order[3]])
    made = {row[0]: row[1:] for row in fig2a(bench).tables[0].rows}
    missed = scores[order[2]]
    others = [scores[t] for t in (order[0], order[1], order[3])]
    assert made["AUROC, all"][0] == pytest.approx(
        sum(missed > s for s in others) / 3
    )  # 1 of 3: two ordinary ones are above it
    tau = mine.calibration.tau
    assert made["accuracy at tau, all"][0] == pytest.approx(
        ((missed >= tau) + sum(s < tau for s in others)) / 4
    )
    assert made["accuracy at .5, VM"][0] == pytest.approx(
        ((missed >= 0.5) + sum(s < 0.5 for s in others)) / 4
    )
    assert made["AUROC, all"][0] == made["AUROC, VM"][0]
    assert [
        made[f"{name}, {kind}"][1]
        for kind in ("all", "VM")
        for name in ("AUROC", "accuracy at .5", "TPR at 1 % FPR")
    ] == [*("0.98", "0.942", "0.876"), *("0.9964", "0.9739", "0.9821")]


def test_without_other_captions_accuracy_at_tau_is_left_out(low):
    mine, _, _ = low
    (made,) = fig2a(Bench(mine, [])).tables
    assert {row[0]: row[1] for row in made.rows}["accuracy at tau, all"] is None
    assert "tau was computed from them" in made.note


@pytest.mark.slow
def test_figure_2b_is_of_all_neurons_of_the_first_value_layer(made):
    work = made.work
    head, *rows = cells(made.folder, "fig2b")
    layer = next(iter(work.model.value_layers))
    for row in rows:
        kind = row[0]
        texts = [c.text for c in work.run.captions() if (c.type or "not memorized") == kind]
        z = []
        for text in texts:
            a = findnemo.activations(work.model, text)[layer].double()
            gap = a - work.calibration.mean[layer].double()
            z += (gap / work.calibration.std[layer].double()).abs().clamp(max=100).tolist()
        assert [int(x) for x in row[1:3]] == [len(texts), len(z) // len(texts)]
        at = head.index("share over 5")
        assert float(row[at]) == pytest.approx(sum(x > 5 for x in z) / len(z))
        assert float(row[-1]) == pytest.approx(max(z))
