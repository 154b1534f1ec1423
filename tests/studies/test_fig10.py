"""Figures 10 to 12: neurons that several captions share."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from _workshop import cells
from PIL import Image

from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.studies.fig10 import fig10


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


def made_by_hand(sets):
    """Figure 10 of captions with these types and neurons, with grey pictures."""
    captions = [
        Caption(k, f"caption {k}", k, kind, None, {"localize": localized(found)}, {}, 0.0)
        for k, (kind, found) in enumerate(sets)
    ]
    bench = SimpleNamespace(
        memorized_captions=lambda: captions,
        model=SimpleNamespace(widths=lambda scope: {"a": 8, "b": 8}),
        over=lambda name, compute, items: [Image.new("RGB", (8, 8), "grey") for _ in items],
    )
    return fig10(bench)


def localized(found):
    return {"neurons": found, "reached": True, "score_before": 0.9, "score_after": 0.1}


def test_shares_of_captions_that_the_most_shared_neurons_explain_by_hand():
    made = made_by_hand([("VM", {"a": [1]}), ("VM", {"a": [1, 2]}), ("TM", {"b": [3]})])
    explained, shared = made.tables
    assert shared.rows == [["1", "#1", 2, "caption 0; caption 1"]]
    # neuron 1 of layer a is in both sets of VM and is the only one of one of them
    assert explained.rows == [
        [1, 1.0, 0.5, 0.0, 0.0],
        [2, 1.0, 1.0, 0.0, 0.0],
        [3, 1.0, 1.0, 1.0, 1.0],
    ]
    assert [axis.get_images() != [] for axis in made.figures["fig10"].axes] == [True] * 4


def test_where_no_captions_share_a_neuron_it_says_so():
    made = made_by_hand([("VM", {"a": [1]}), ("TM", {"b": [3]})])
    assert made.text.endswith("In this run no two captions share a neuron.")
    assert (made.tables[1].rows, made.figures) == ([], {})
