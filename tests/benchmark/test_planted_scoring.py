"""An answer compared with the planted truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from findnemo import demo
from findnemo.benchmark.captions import ORDINARY, ordinary
from findnemo.benchmark.members import TRAINED_ON
from findnemo.benchmark.methods import Answer
from findnemo.benchmark.planted_scoring import TRUTH, UNRELATED, PlantedJudge, precision, recall
from findnemo.edits import scaled
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.deltas import Probe
from findnemo.scores import ssim


@pytest.mark.parametrize(
    ("found", "right", "share", "of_two"),
    [
        ({}, None, 0.0, 0.0),
        ({"a": [1]}, 1.0, 0.25, 0.5),
        ({"a": [1, 2, 9, 8]}, 0.5, 0.5, 1.0),
        ({"a": [1, 2, 3], "b": [4]}, 1.0, 1.0, 1.0),
    ],
)
def test_precision_and_recall_by_hand(found, right, share, of_two):
    planted = NeuronSet({"a": [1, 2, 3], "b": [4]})
    assert precision(NeuronSet(found), planted) == right
    assert recall(NeuronSet(found), planted) == share
    assert recall(NeuronSet(found), planted, 2) == of_two


def test_a_score_says_what_switching_off_does(member):
    memory = member.plan.memories[0]
    judge = PlantedJudge(member, images=1)
    truth = judge.score(memory, TRUTH, judge.anchor_answer(memory))
    nothing = judge.score(memory, "nothing", Answer(EMPTY))
    assert (truth.precision, truth.recall, truth.needed, truth.size, truth.gone) == (
        1.0,
        1.0,
        1.0,
        1.0,
        True,
    )
    assert (nothing.precision, nothing.recall, nothing.same_seed, nothing.gone, nothing.kept) == (
        None,
        0.0,
        1.0,
        False,
        1.0,
    )
    probe = Probe(member.model, memory.caption, member.calibration.settings, range(1000, 1010))
    with scaled(member.model, {n: _off(member, n, i) for n, i in memory.neurons.layers.items()}):
        off = probe.deltas()
    assert truth.same_seed == pytest.approx(float(ssim(probe.deltas(), off).max()), abs=1e-4)


def _off(member, name, indices):
    scale = torch.ones(member.model.widths()[name])
    scale[list(indices)] = 0
    return scale


def test_memories_that_were_not_learned_and_near_duplicates_that_copy_are_left_out(member):
    def captions(member):
        return [(c, kind) for _, c, kind in PlantedJudge(member).work() if kind != "ordinary"]

    memory = member.plan.memories[0]
    odd = ("mountains 77", "unusual")
    lost = replace(member, plan=replace(member.plan, measured={memory.caption: {"learned": False}}))
    assert captions(lost) == [odd]
    copying = replace(
        member,
        plan=replace(
            member.plan, measured={memory.caption: {"learned": True, "near": {memory.near[0]: 0.9}}}
        ),
    )
    assert captions(copying) == [(memory.caption, "one neuron"), odd]
    assert captions(member) == [
        (memory.caption, "one neuron"),
        (memory.near[0], "near-duplicate"),
        odd,
    ]


def test_ordinary_captions_are_drawn_from_those_that_nothing_has_seen(member):
    """At random and not by score: neither trained on, nor calibrated with, nor those that
    are to stay what they are.
    """
    drawn = [c for memory, c, kind in PlantedJudge(member).work() if kind == "ordinary"]
    pool = demo.unrelated()[TRAINED_ON:]
    assert len(set(drawn)) == len(drawn) == ORDINARY
    assert set(drawn) <= set(pool[UNRELATED:]) - set(demo.holdout()) - set(member.reference)
    assert drawn != sorted(drawn, key=pool.index)
    assert drawn == list(ordinary(member.unrelated[UNRELATED:]))
    assert ordinary(["a", "b"], 5) in (("a", "b"), ("b", "a"))
