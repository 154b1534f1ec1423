"""Figures 4 and 7: how many neurons hold a memory, and in which layers."""

from __future__ import annotations

import pytest
from _workshop import cells

import findnemo
from findnemo.runs.standing import neurons_of


@pytest.mark.slow
def test_figures_4_and_7_count_prompts_and_mean_neurons(made):
    work = made.work
    folder = made.folder
    layers = list(work.model.widths())
    captions = [c for c in work.run.captions() if c.type and len(neurons_of(c))]
    sets = {
        kind: [
            findnemo.localize(work.model, c.text, work.calibration, "listing")
            for c in captions
            if c.type == kind
        ]
        for kind in ("VM", "TM")
    }
    head, *rows = cells(folder, "fig4-1")
    for kind, n, _, one, *shares in rows:
        sizes = [len(found.neurons) for found in sets[kind]]
        assert (int(n), int(one)) == (len(sizes), sizes.count(1))
        few, many = sum(s <= 5 for s in sizes), sum(s >= 50 for s in sizes)
        assert [float(x) for x in shares[:3]] == [
            pytest.approx(k / len(sizes)) for k in (sizes.count(1), few, many)
        ]
    assert next(r for r in rows if r[0] == "VM")[head.index("one, paper")] == "28 prompts"
    _, *rows = cells(folder, "fig7-2")
    for label, *means in rows:
        kind, step = label.split(", ")
        chosen = [f.candidates if "initial" in step else f.neurons for f in sets[kind]]
        own = [sum(len(s.layers.get(n, ())) for s in chosen) / len(chosen) for n in layers]
        assert [float(x) for x in means] == pytest.approx(own)
    assert [r[1:] for r in rows if "refined" in r[0]] == [
        r[1:] for r in cells(folder, "fig4-2")[1:]
    ]
