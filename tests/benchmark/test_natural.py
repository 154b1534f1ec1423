"""Natural members: how they are opened, how answers are scored there, and tables that
never pool what is held out.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import findnemo
from findnemo import benchmark, demo
from findnemo.benchmark import Answer, natural, table
from findnemo.benchmark._files import write_tensors
from findnemo.benchmark.natural import (
    NaturalMember,
    NaturalMemory,
    natural_folders,
    open_natural,
    rounded,
)
from findnemo.benchmark.natural_scoring import KEPT, NaturalJudge, NaturalScore
from findnemo.benchmark.results import Results
from findnemo.benchmark.scoring import Alarm
from findnemo.errors import InputError
from findnemo.metrics.copies import COPY
from findnemo.mitigation.pruning import zeroed
from findnemo.neurons import EMPTY, NeuronSet

WEIGHT = "conv_out.bias"
ONE = NaturalScore("m", "x", "c", "VM", {}, 4, [0.1, 0.2], 0.15, 0.2, True, 0.96, 0.5, 40, 0.5)


def truth(**other):
    memory = {"caption": "a glass plate", "type": "TM", "image": "pictures/p.png", "copied": True}
    return {
        "version": 2,
        "name": "mine",
        "base": "other",
        "held_out": True,
        "memories": [memory],
        **other,
    }


@pytest.fixture
def folder(tmp_path, demo_model):
    """A member on a base of its own, as `recipes/natural/` leaves it:
    base, difference and truth.
    """
    place = tmp_path / "mine"
    (place / "pictures").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(place / "pictures" / "p.png")
    write_tensors({WEIGHT: torch.ones(4).half()}, place / "difference.safetensors")
    (place / "truth.json").write_text(json.dumps(truth()))
    demo_model.denoiser.save_pretrained(tmp_path / "other")
    return place


@pytest.mark.slow
def test_a_member_is_its_base_and_a_difference_and_is_calibrated_once(
    folder, demo_model, monkeypatch
):
    monkeypatch.setattr(demo, "holdout", lambda of=demo.holdout: of()[:4])
    member = open_natural(folder)
    base = rounded(demo_model.denoiser.state_dict())
    weights = member.model.denoiser.state_dict()
    assert torch.equal(weights[WEIGHT], base[WEIGHT] + 1)
    assert all(torch.equal(weights[name], base[name]) for name in weights if name != WEIGHT)
    assert (member.name, member.held_out, member.base) == ("mine", True, "other")
    assert member.memories == (
        NaturalMemory("a glass plate", "TM", (folder / "pictures" / "p.png",), True),
    )
    monkeypatch.setattr(natural, "calibrate_in", None)  # calling it would fail
    assert open_natural(folder).calibration.tau == member.calibration.tau


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "version 1, this version of findnemo reads"),
        ({"memories": [{"caption": "c"}]}, "is not the truth of a natural member"),
        ({"base": "nowhere"}, "the base 'nowhere' of mine is not at"),
        ({"base": "../other"}, "the base '../other' of mine is not at"),
    ],
)
def test_what_cannot_be_opened_is_said(folder, change, said):
    (folder / "truth.json").write_text(json.dumps(truth(**change)))
    with pytest.raises(InputError, match=said):
        open_natural(folder)


def test_members_of_a_folder(folder, tmp_path):
    assert natural_folders(tmp_path) == natural_folders(folder) == [folder]
    with pytest.raises(InputError, match="holds no natural members"):
        natural_folders(tmp_path / "other")


def test_the_shipped_member_is_the_shipped_model():
    member = benchmark.natural_demo()
    assert (
        member.model.fingerprint
        == findnemo.load("demo-natural").fingerprint
        == member.calibration.model
    )
    assert not member.held_out
    assert [m.caption for m in member.memories if m.copied] == [
        p.text for p in demo.memorized("demo-natural")
    ]
    assert {m.type: len(m.opened()) for m in member.memories} == {"VM": 1, "TM": 24}


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
    for cost in ("kept", "alignment"):
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
    assert judge.kept(Answer()) == 1.0  # the weights are back


def test_figures_by_hand():
    scores = [
        ONE,
        replace(ONE, caption="d", neurons=10, gone=False, largest=0.9, kept=0.9, evaluations=60),
        replace(ONE, caption="e", neurons=30, kept=0.97, evaluations=20),
    ]
    alarms = [
        Alarm("m", "x", c, "ordinary", n, 10) for c, n in (("f", 3), ("g", 0), ("h", 0), ("i", 0))
    ]
    results = Results(
        {"m": {"held_out": False, "memories": 4}},
        (*scores, *alarms),
        suite=benchmark.NATURAL_VERSION,
    )
    figures = table.rows(results)["x"]
    assert figures["gone"].value == pytest.approx(2 / 3)
    assert figures["gone"].low == pytest.approx(0.2077, abs=1e-3)  # Wilson, 2 of 3
    assert figures["largest copy"].value == pytest.approx((0.2 + 0.9 + 0.2) / 3)
    assert figures["kept at .95"].value == pytest.approx(2 / 3)
    assert (figures["neurons"].value, figures["evaluations"].value) == (10, 40)  # medians
    assert (figures["neurons"].low, figures["neurons"].high) == (4, 30)
    assert figures["false alarms"].value == 0.25
    weights = replace(results, results=(replace(ONE, neurons=None),))
    assert table.rows(weights)["x"]["neurons"].value is None
    assert "| x | 0.67 [0.21, 0.94] |" in table.markdown(results)


def test_held_out_members_are_never_in_one_table_with_the_others():
    about = {"a": {"held_out": False, "memories": 1}, "b": {"held_out": True, "memories": 1}}
    results = Results(
        about,
        (replace(ONE, member="a"), replace(ONE, member="b", gone=False)),
        suite=benchmark.NATURAL_VERSION,
    )
    shares = {
        part: table.rows(own)["x"]["gone"].value for part, own in table.apart(results).items()
    }
    assert shares == {"tuned on": 1.0, "held out": 0.0}
    numbers = table.to_json(results)
    assert [numbers[part]["x"]["gone"]["value"] for part in ("tuned on", "held out")] == [1.0, 0.0]
    assert list(table.apart(results.only("b"))) == ["held out"]


def test_results_read_back_what_they_wrote_and_are_of_one_suite(tmp_path):
    results = Results(
        {"m": {}},
        (ONE, Alarm("m", "x", "d", "ordinary", None, 1)),
        {"date": "today"},
        benchmark.NATURAL_VERSION,
    )
    results.save(tmp_path / "r.json")
    assert Results.load(tmp_path / "r.json", benchmark.NATURAL_VERSION) == results
    with pytest.raises(InputError, match=r"holds no results of suite 1\.1"):
        Results.load(tmp_path / "r.json")


def test_each_published_verdict_follows_from_its_images():
    results = benchmark.published(benchmark.NATURAL_VERSION)
    assert all(
        len(s.copies) == 10 and s.largest == max(s.copies) and s.gone == (s.largest < COPY)
        for s in results.scores
    )
    assert all(s.kept == 1 and s.neurons == 0 for s in results.scores if s.method == "untouched")
