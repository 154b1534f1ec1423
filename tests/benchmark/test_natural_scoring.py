"""How answers are scored where nobody planted the memory: pictures decide."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import findnemo
from findnemo import benchmark, demo
from findnemo.benchmark import Answer
from findnemo.benchmark.natural import NaturalMember, NaturalMemory
from findnemo.benchmark.natural_scoring import KEPT, NaturalJudge
from findnemo.metrics.copies import COPY
from findnemo.mitigation.pruning import zeroed
from findnemo.neurons import EMPTY, NeuronSet


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Of a member made of the tiny model."""
    from _planting import CAPTION, HOLDOUT, planted
    from _tiny import tiny_pipeline

    model, _ = planted(tiny_pipeline())
    model.pipeline.set_progress_bar_config(disable=True)
    path = tmp_path_factory.mktemp("pictures") / "p.png"
    Image.new("RGB", (64, 64), "red").save(path)
    memories = tuple(
        NaturalMemory(c, "VM", (path, path), copied)
        for c, copied in ((CAPTION, True), ("another", False))
    )
    return NaturalJudge(
        NaturalMember("tiny", model, findnemo.calibrate(model, HOLDOUT), memories, False, "pruned"),
        images=3,
    )


def test_only_captions_that_copy_are_scored_and_ordinary_ones_were_never_seen(judge):
    work = judge.work()
    assert [caption for memory, caption, _ in work if memory is not None] == [
        judge.member.memories[0].caption
    ]
    drawn = {caption for memory, caption, kind in work if memory is None and kind == "ordinary"}
    assert len(drawn) == len(work) - 1
    assert drawn <= set(demo.unrelated()[KEPT:]) - set(demo.holdout())
    assert judge.about() == {
        "fingerprint": judge.member.model.fingerprint,
        "tau": round(judge.member.calibration.tau, 4),
        "held_out": False,
        "base": "pruned",
        "memories": 2,
        "learned": 1,
        "negatives": len(drawn),
    }


def test_a_score_by_hand(judge, monkeypatch):
    """Of each image the nearest of the variants counts; one copy among ten is a copy."""
    table = torch.tensor([[0.1, 0.3], [0.69, 0.2], [0.5, COPY]])
    descriptor = SimpleNamespace(similarity=lambda made, pictures: table)
    monkeypatch.setattr(judge, "judges", replace(judge.judges, descriptor=descriptor))
    for cost in ("unrelated_similarity", "alignment"):
        monkeypatch.setattr(judge, cost, lambda answer: 0.5)
    memory = judge.member.memories[0]
    score = judge.score(
        memory, "x", Answer(NeuronSet({next(iter(judge.member.model.widths())): [1, 2]}), 9), 1.234
    )
    assert (score.copies, score.median, score.largest, score.gone) == (
        [0.3, 0.69, 0.7],
        0.69,
        0.7,
        False,
    )
    assert (score.neurons, score.evaluations, score.seconds) == (2, 9, 1.23)
    table[2, 1] = COPY - 0.01
    assert judge.score(
        memory, "x", Answer(NeuronSet({next(iter(judge.member.model.widths())): [3]}))
    ).gone


@pytest.mark.slow
def test_the_untouched_model_is_what_it_was_and_an_edit_is_scored_as_it_is(judge, monkeypatch):
    monkeypatch.setattr(judge, "alignment", lambda answer: 0.5)
    memory = judge.member.memories[0]
    model = judge.member.model
    untouched = judge.score(memory, judge.anchor, judge.anchor_answer(memory))
    assert (untouched.kept, untouched.neurons, untouched.found) == (1.0, 0, {})
    layer = model.denoiser.time_embedding.linear_2
    everything = torch.ones_like(layer.weight, dtype=torch.bool)
    edited = judge.score(memory, "weights", Answer(EMPTY, 5, lambda: zeroed({layer: everything})))
    assert edited.neurons is None
    assert edited.kept < 1.0
    assert edited.copies != untouched.copies
    assert judge.unrelated_similarity(Answer()) == 1.0  # the weights are back


def test_each_published_verdict_follows_from_its_images():
    results = benchmark.published(benchmark.NATURAL_VERSION)
    assert all(
        len(s.copies) == 10 and s.largest == max(s.copies) and s.gone == (s.largest < COPY)
        for s in results.scores
    )
    assert all(s.kept == 1 and s.neurons == 0 for s in results.scores if s.method == "untouched")
