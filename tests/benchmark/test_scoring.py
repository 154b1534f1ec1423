"""Members are scored method by method, with answers of one's own as a method."""

from __future__ import annotations

from dataclasses import replace

import pytest
from _planting import CAPTION, INDEX

from findnemo.benchmark.methods import METHODS, Answer
from findnemo.benchmark.planted_scoring import TRUTH
from findnemo.benchmark.scoring import Alarm, answers, score_member
from findnemo.errors import InputError
from findnemo.neurons import EMPTY, NeuronSet


@pytest.mark.slow
def test_a_member_is_scored_on_memories_and_on_captions_that_are_none(member):
    methods = {
        "z-score": METHODS["z-score"],
        "all": lambda task: Answer(
            NeuronSet({"mid_block.attentions.0.transformer_blocks.0.attn2.to_v": [0, 1]}), 3
        ),
    }
    results = list(score_member(member, methods, limit=1))
    assert [(type(r).__name__, r.method) for r in results] == [
        ("Score", TRUTH), ("Score", "z-score"), ("Score", "all"), *[("Alarm", "z-score"), ("Alarm", "all")] * 3,
    ]  # fmt: skip
    assert [r.kind for r in results if isinstance(r, Alarm)] == ["ordinary"] * 2 + [
        "near-duplicate"
    ] * 2 + ["unusual"] * 2
    assert results[2].precision == 0.0
    assert results[2].evaluations == 3
    known = {(r.method, r.caption) for r in results}
    assert list(score_member(member, methods, limit=1, done=lambda m, c: (m, c) in known)) == []


def test_answers_of_ones_own_are_a_method(planted_task):
    layer = next(iter(planted_task.model.widths()))
    given = {
        "method": "mine",
        "answers": {"seed7": {CAPTION: {"neurons": {layer: [INDEX]}, "evaluations": 5}}},
    }
    mine = answers(given, "seed7")["mine"]
    assert mine(planted_task) == Answer(NeuronSet({layer: [INDEX]}), 5)
    assert mine(replace(planted_task, prompt="another")) == Answer(EMPTY)
    assert answers(given, "demo") == {}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"answers": {"m": {"c": 1}}},
        {"answers": {"m": {"c": {"neurons": {"l": [-1]}}}}, "method": "x"},
        {"answers": 3},
    ],
)
def test_answers_that_are_none_are_refused(values):
    with pytest.raises(InputError):
        answers(values, "m")
