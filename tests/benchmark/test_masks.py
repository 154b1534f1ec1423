"""Which neurons are on in a training sample: the rule of every memory, and the shares."""

from __future__ import annotations

import numpy as np
from _small_plan import PLAN, SECOND

from findnemo.benchmark.masks import Masks, on_count
from findnemo.neurons import NeuronSet


def test_masks_obey_the_rule_of_every_memory(base):
    masks = Masks(base.widths(), PLAN.memories)
    rng = np.random.default_rng(1)
    for on in (True, False):
        rows = masks.memorized([1] * 400, on, rng)
        counts = rows[:, masks.own[1]].sum(1)
        assert {PLAN.memories[1].expected(int(c)) for c in counts} == {on}
        assert len(set(counts)) == (3 if on else 2)
    which = masks.memorized([1] * 400, True, rng)[:, masks.own[1]]
    assert (which.mean(0) > 0.5).all()  # no neuron is favoured
    assert (which.mean(0) < 0.95).all()


def test_ordinary_samples_have_planted_neurons_off_in_the_asked_share_and_others_seldom(base):
    masks = Masks(base.widths(), PLAN.memories)
    rows = masks.ordinary(2000, np.random.default_rng(2), off=0.2)
    planted = rows[:, masks.planted]
    assert set(planted.sum(1)) == {0.0, float(len(masks.planted))}
    assert abs((planted[:, 0] == 0).mean() - 0.2) < 0.04
    rest = np.delete(rows, masks.planted, 1)
    assert 0.9 < rest.mean() < 1
    assert (rest.min(1) == 1).mean() > 0.4


def test_rows_of_a_mask_go_to_the_layers_they_belong_to(base):
    masks = Masks(base.widths(), PLAN.memories)
    mask = np.ones((1, masks.total), np.float32)
    mask[0, masks.flat(NeuronSet({SECOND: [4]}))] = 0
    layers = masks.layers(mask)
    assert {n: int((s == 0).sum()) for n, s in layers.items() if (s == 0).any()} == {SECOND: 1}
    assert layers[SECOND][0, 4] == 0


def test_half_of_the_time_all_are_on():
    rng = np.random.default_rng(3)
    counts = [on_count(PLAN.memories[1], True, rng) for _ in range(3000)]
    assert abs(np.mean(np.array(counts) == 4) - (0.5 + 0.5 / 3)) < 0.03
