"""What both suites share: which captions are scored, and that an effect is measured once."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from findnemo.benchmark import Answer
from findnemo.benchmark.judging import Judge
from findnemo.neurons import NeuronSet
from findnemo.passes import Probe
from findnemo.scores import ssim
from findnemo.seeds import FRESH

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


class Noting(Judge):
    """A judge of a member that notes what it measures."""

    result = SimpleNamespace
    anchor = "all off"

    def __init__(self, member):
        super().__init__(member, ["two dogs run", "mountains"], images=1)
        self.memories = [*member.plan.memories, replace(member.plan.memories[0], caption="other")]
        self.negatives = {"ordinary": ("a", "b", "c"), "unusual": ("d",)}
        self.origin = {"base": "tiny"}
        self.measured = []

    def task(self, caption):
        raise NotImplementedError

    def anchor_answer(self, memory):
        return Answer(memory.neurons)

    def on_memory(self, memory, answer):
        self.measured.append((memory.caption, answer.size))
        return {"copies": len(self.measured)}

    def on_others(self, answer):
        self.measured.append(("others", answer.size))
        return {"kept": len(self.measured)}


@pytest.fixture
def judge(member, monkeypatch):
    monkeypatch.setattr("findnemo.benchmark.judging.demo.judges", lambda: None)
    return Noting(member)


def test_the_effect_of_a_set_is_measured_once_whichever_methods_find_it(judge):
    memory, other = judge.memories
    found = NeuronSet({LAYER: [1, 2]})
    one = judge.score(memory, "one", Answer(found, 5), 1.234)
    two = judge.score(memory, "two", Answer(found, 9))
    assert judge.measured == [("others", 2), (memory.caption, 2)]
    assert (one.kept, one.copies) == (two.kept, two.copies)
    assert [(s.method, s.evaluations, s.seconds) for s in (one, two)] == [
        ("one", 5, 1.23),
        ("two", 9, 0.0),
    ]
    judge.score(other, "one", Answer(found))  # a memory of its own, and the same change
    judge.score(memory, "weights", Answer(found, edit=nullcontext))  # another change
    assert judge.measured[2:] == [("other", 2), ("others", None), (memory.caption, None)]


def test_a_limit_is_of_every_kind_of_caption(judge):
    assert [(caption, kind) for _, caption, kind in judge.work(1)] == [
        (judge.memories[0].caption, judge.memories[0].kind),
        ("a", "ordinary"),
        ("d", "unusual"),
    ]
    assert len(judge.work()) == 2 + 3 + 1
    about = judge.about()
    assert (about["base"], about["learned"], about["negatives"]) == ("tiny", 2, 4)
    assert about["fingerprint"] == judge.member.model.fingerprint


def test_what_is_kept_is_the_mean_likeness_of_noise_differences(judge, member):
    """Against passes one by one."""
    off = NeuronSet({LAYER: range(16)})
    alike = []
    for caption in judge.unrelated:
        probe = Probe(member.model, caption, member.calibration.settings, [FRESH])
        alike.append(float(ssim(probe.deltas(), probe.deltas(off))[0]))
    assert judge.unrelated_similarity(Answer(off)) == pytest.approx(
        sum(alike) / len(alike), abs=2e-4
    )
    assert judge.unrelated_similarity(Answer(off)) < judge.unrelated_similarity(Answer()) == 1.0
