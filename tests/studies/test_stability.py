"""Stability: whether other seeds, wordings and number formats find the same neurons, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from findnemo.neurons import NeuronSet
from findnemo.prompts.paraphrases import paraphrases
from findnemo.studies.stability import ITSELF, SEEDS, stability

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture
def tables(bench, monkeypatch):
    """What the study tells if the search finds neurons 0 and 1 of a caption; on every other seed
    only neuron 0; in a picture's wording nothing, and in quotes neurons 1 and 2.
    """
    texts = {c.text for c in bench.sample()}

    def localize(model, text, calibration, search):
        assert search == bench.work.plan.search
        found = [0, 1]
        if calibration.settings.seed % 2:
            found = [0]
        elif text.startswith('"'):
            found = [1, 2]
        memorized = text in texts or not text.startswith("a picture of")
        return SimpleNamespace(memorized=memorized, neurons=NeuronSet({LAYER: found}))

    monkeypatch.setattr("findnemo.studies.stability.localize", localize)
    return [
        [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        for table in stability(bench).tables
    ]


def test_each_change_is_told_by_the_overlap_of_every_two_sets(bench, tables):
    captions = bench.sample()
    rows = {row["change"]: row for row in tables[0]}
    assert rows["seed"]["variants memorized"] == f"{5 * len(captions)} of {5 * len(captions)}"
    # of ten pairs of five seeds, six are of an even and an odd seed: half of their neurons
    assert rows["seed"]["IoU, mean"] == pytest.approx((4 * 1 + 6 * 0.5) / 10)
    assert rows["seed"]["same set throughout"] == 0
    assert rows["dtype"]["IoU, mean"] == 1
    assert rows["dtype"]["same set throughout"] == len(captions)


def test_a_wording_that_is_not_memorized_is_counted_and_not_compared(bench, tables):
    captions = bench.sample()
    rows = {row["wording"]: row for row in tables[1]}
    assert set(rows) == {kind for c in captions for kind in paraphrases(c.text)} - {ITSELF}
    overlap = "IoU with the caption's own set, median"
    assert rows["a picture of"]["memorized too"] == 0
    assert rows["a picture of"][overlap] is None
    assert rows["in quotes"]["memorized too"] == len(captions)
    assert rows["in quotes"][overlap] == pytest.approx(1 / 3)


def test_neurons_are_told_with_the_number_of_seeds_that_find_them(bench, tables):
    counts = [(row["neuron"], row["found by"], row["of seeds"]) for row in tables[2]]
    assert counts == [(0, SEEDS, SEEDS), (1, 3, SEEDS)] * len(bench.sample())
