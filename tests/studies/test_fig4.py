"""Figures 4 and 7: how many neurons hold a memory, and in which layers."""

from __future__ import annotations

import pytest
from _workshop import cells

import findnemo
from findnemo.neurons import NeuronSet
from findnemo.runs.standing import neurons_of
from findnemo.studies import Bench
from findnemo.studies.fig4 import fig4, fig7


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


@pytest.fixture
def listed(bench, monkeypatch):
    """A bench in which the listing finds one and sixty neurons of the verbatim memories, of three
    and eighty candidates, and none of the template.
    """
    layer = next(iter(bench.model.widths()))
    sizes = iter([(3, 1), (80, 60)])
    pairs = {
        c.id: tuple(NeuronSet({layer: range(n)}) for n in next(sizes))
        for c in bench.memorized_captions()
        if c.type == "VM"
    }
    monkeypatch.setattr(Bench, "listed_neurons", lambda self, captions: pairs)
    return bench


def test_figure_4_by_hand(listed):
    per_prompt, per_layer = fig4(listed).tables
    (row,) = per_prompt.rows
    # one of two has one neuron, one has five or fewer, one has fifty or more
    assert row == ["VM", 2, 30.5, 1, 0.5, 0.5, 0.5, "28 prompts", "2/3", None]
    assert per_prompt.note == "Left out: 1, for which the listing finds no neurons."
    assert per_layer.rows == [["VM", 30.5, 0.0]]


def test_figure_7_by_hand(listed):
    per_prompt, per_layer = fig7(listed).tables
    assert per_prompt.rows == [["VM", 2, 41.5, 30.5, 26.5, 4]]
    assert per_layer.rows == [["VM, initial selection", 41.5, 0.0], ["VM, refined", 30.5, 0.0]]
