"""The models of the suite: the demo model, and those that are trained from it."""

from __future__ import annotations

import pytest

from findnemo import benchmark, demo
from findnemo.benchmark.members import demo_plan, open_member, open_suite
from findnemo.benchmark.planted_scoring import learned
from findnemo.errors import InputError
from findnemo.neurons import NeuronSet


def test_the_demo_model_is_a_plan_too():
    plan = demo_plan()
    assert len(plan.memories) == 24
    assert plan.planted == NeuronSet.of(n for g in demo.planted().values() for n in g)
    podcast = [m.kind for m in plan.memories if "Podcast" in m.caption]
    assert podcast == ["shared"] * 3
    assert all(m.alive == 1 and m.gone == 0 for m in plan.memories)


@pytest.mark.slow
def test_a_model_is_made_whole_by_one_call(tmp_path):
    """Two steps teach nothing: so the memories are measured, and none counts as learned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.benchmark.pool.OWN", 1)
        patch.setattr("findnemo.benchmark.members.TRAINED_ON", 5)
        patch.setattr("findnemo.demo.holdout", lambda of=demo.holdout: of()[:20])
        made = benchmark.train_member(
            tmp_path / "seed3", 3, benchmark.Recipe(steps=2), lambda line: None
        )
    again = open_member(tmp_path / "seed3")
    assert again.plan == made.plan
    assert (
        again.model.fingerprint
        == made.model.fingerprint
        != benchmark.demo_member().model.fingerprint
    )
    assert set(again.plan.measured) == {m.caption for m in again.plan.memories}
    assert learned(again)[0] == []
    assert sum(f.stat().st_size for f in (tmp_path / "seed3" / "model").rglob("*")) < 20e6


def test_no_suite_is_said(tmp_path):
    with pytest.raises(InputError, match="holds no trained models"):
        open_suite(tmp_path)
    with pytest.raises(InputError, match="no finished benchmark model"):
        open_member(tmp_path / "seed1")
