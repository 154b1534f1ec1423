"""Figures 10 to 12: neurons that several captions share."""

from __future__ import annotations

from collections import Counter

import pytest
from _workshop import cells

from findnemo.runs.standing import neurons_of


@pytest.mark.slow
def test_figure_10_counts_captions_of_shared_neurons(made):
    _, *rows = cells(made.folder, "fig10-2")
    layers = list(made.work.model.value_layers)
    memorized = [c for c in made.work.run.captions() if len(neurons_of(c))]
    for layer, neuron, count, _ in rows:
        one = (layers[int(layer) - 1], int(neuron.lstrip("#")))
        assert int(count) == sum(one in neurons_of(c) for c in memorized) > 1


@pytest.mark.slow
def test_captions_that_the_most_shared_neurons_explain(made):
    head, *rows = cells(made.folder, "fig10-1")
    captions = [c for c in made.work.run.captions() if c.type]
    held = Counter(n for c in captions for n in neurons_of(c))
    layers = list(made.work.model.widths("all"))
    order = sorted(held, key=lambda n: (-held[n], layers.index(n[0]), n[1]))
    at = next(k for k, name in enumerate(head) if name.startswith("VM"))
    mine = [set(neurons_of(c)) for c in captions if c.type == "VM"]
    for row in rows:
        top = set(order[: int(row[0])])
        assert float(row[at]) == sum(bool(s & top) for s in mine) / len(mine)
        assert float(row[at + 1]) == sum(not s - top for s in mine) / len(mine)
