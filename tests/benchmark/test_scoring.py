"""Scores by hand, methods on a memory whose neuron is known, results that grow and tables
that say what they hold.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from _planting import CAPTION, HOLDOUT, INDEX
from _tiny_suite import tiny_member

from findnemo import benchmark, demo
from findnemo.benchmark import methods, table
from findnemo.benchmark.captions import ORDINARY, ordinary
from findnemo.benchmark.learned_mask import learned_mask
from findnemo.benchmark.members import TRAINED_ON, open_member, open_suite
from findnemo.benchmark.methods import METHODS, Answer, Task, attribution, wanda_scores
from findnemo.benchmark.natural_scoring import UNTOUCHED
from findnemo.benchmark.planted_scoring import (
    TRUTH,
    UNRELATED,
    PlantedJudge,
    Score,
    learned,
    precision,
    recall,
)
from findnemo.benchmark.results import Results
from findnemo.benchmark.scoring import Alarm, answers, score_member
from findnemo.benchmark.truth import measure
from findnemo.edits import scaled
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.localization.replication import Replication
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.deltas import Probe
from findnemo.scores import pairwise, ssim

ONE = Score(
    "m",
    "x",
    "c",
    "one neuron",
    "VM",
    {},
    2,
    0.5,
    1.0,
    1.0,
    2.0,
    0.2,
    True,
    0.1,
    False,
    0.9,
    20,
    0.5,
)


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    return open_member(tiny_member(tmp_path_factory.mktemp("suite")))


@pytest.fixture
def task(member, monkeypatch):
    monkeypatch.setattr(methods, "learned_mask", partial(learned_mask, steps=2))
    return Task(
        member.model, CAPTION, member.calibration, tuple(HOLDOUT), images=ImageSettings(3, 2.0)
    )


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


@pytest.mark.first(1)
@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("random", "findnemo")])
def test_every_method_finds_the_one_neuron_that_holds_all(name, task, member):
    """One neuron drives the image, and it alone is unusual: whatever ranks neurons well must
    have it. (The default search looks at pictures, which random weights have none of;
    tests/localization has its tests.)
    """
    answer = METHODS[name](task)
    if answer.edit is not None:  # it changes weights: `test_methods`
        assert (answer.size, answer.neurons) == (None, EMPTY)
        return
    assert ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v", INDEX) in answer.neurons
    if name in ("gradient", "NeMo", "attribution"):
        assert answer.neurons == member.plan.planted


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in METHODS if n not in ("random", "z-score", "Wanda", "ConceptPrune")]
)
def test_methods_that_look_at_seeds_return_nothing_where_no_seed_replicates(name, task, member):
    quiet = replace(task, calibration=replace(member.calibration, tau=1.1))
    assert METHODS[name](quiet).neurons == EMPTY


def test_chance_draws_as_many_as_the_default_search_and_the_same_each_time(task, monkeypatch):
    found = NeuronSet({next(iter(task.model.widths())): [0, 1, 2]})
    monkeypatch.setattr(
        methods, "by_search", lambda task, search: {"trajectory": Answer(found, 50)}[search]
    )
    first = METHODS["random"](task)
    again = METHODS["random"](task)
    assert first == again
    assert len(first.neurons) == 3


def test_attribution_is_the_slope_of_the_mean_similarity(demo_model):
    """Against a finite difference, for the neuron that matters most."""
    caption = demo.memorized()[2].text
    probe = Probe(demo_model, caption)
    seeds = [0, 1, 2]
    step = 0.02
    slopes = attribution(Replication(probe, 0.0), [0, 1, 2], demo_model.widths())
    _, name, i = max(
        (abs(float(v)), name, i) for name, values in slopes.items() for i, v in enumerate(values)
    )

    def mean(value: float) -> float:
        scales = torch.ones(1, len(slopes[name]))
        scales[0, i] = value
        with torch.no_grad():
            return float(
                pairwise(probe.scaled_deltas({name: scales}, seeds))[
                    torch.triu_indices(3, 3, 1).unbind()
                ].mean()
            )

    assert (mean(1 + step) - mean(1 - step)) / (2 * step) == pytest.approx(
        float(slopes[name][i]), rel=0.1
    )


def test_wanda_by_hand(member):
    model = member.model
    name, layer = next(iter(model.value_layers.items()))
    text = model.encode([CAPTION]).tokens[0]
    by_hand = [
        sum(abs(float(w)) * float(text[:, j].norm()) for j, w in enumerate(row))
        for row in layer.weight[:3].tolist()
    ]
    assert torch.allclose(
        wanda_scores(model, [CAPTION])[name][:3], torch.tensor(by_hand), rtol=1e-4
    )


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


@pytest.mark.slow
def test_what_was_planted_is_measured(member):
    values = measure(member, member.plan.memories[0], demo.judges().descriptor)
    assert values["score"] > member.calibration.tau >= values["off"]
    assert values["enough"] == values["few"] == []  # one neuron: on or off says it all
    assert set(values["near"]) == set(member.plan.memories[0].near)


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


def test_answers_of_ones_own_are_a_method(task):
    layer = next(iter(task.model.widths()))
    given = {
        "method": "mine",
        "answers": {"seed7": {CAPTION: {"neurons": {layer: [INDEX]}, "evaluations": 5}}},
    }
    mine = answers(given, "seed7")["mine"]
    assert mine(task) == Answer(NeuronSet({layer: [INDEX]}), 5)
    assert mine(replace(task, prompt="another")) == Answer(EMPTY)
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


def test_results_read_back_what_they_wrote_and_grow(member, tmp_path):
    alarm = Alarm("seed7", "x", "d", "unusual", 0, 10)
    results = Results().with_member(member).plus([replace(ONE, member="seed7"), alarm])
    results.save(tmp_path / "r.json")
    again = Results.load(tmp_path / "r.json")
    assert again == results
    assert again.done() == {("seed7", "x", "c"), ("seed7", "x", "d")}
    assert again.members["seed7"]["fingerprint"] == member.model.fingerprint
    assert json.loads((tmp_path / "r.json").read_text())["suite"] == benchmark.SUITE_VERSION


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"suite": "0"}, "suite '0', this version of findnemo reads '1.1'"),
        ({"members": []}, "members: "),
        ({"results": [{"member": "m"}]}, "results.0."),
    ],
)
def test_what_are_no_results_is_refused_with_the_place(tmp_path, change, said):
    path = tmp_path / "r.json"
    Results(results=(ONE,)).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"r\.json holds no results of suite 1\.1") as refused:
        Results.load(path)
    assert said in str(refused.value)


def test_results_of_another_model_are_dropped(member):
    old = Results({"seed7": {"fingerprint": "other"}}, (replace(ONE, member="seed7"), ONE))
    assert old.with_member(member).results == (ONE,)


def test_own_results_come_over_published_ones_member_by_member():
    own = Results({"a": {}}, (replace(ONE, member="a", precision=1.0),))
    known = Results({"a": {}, "b": {}}, (replace(ONE, member="a"), replace(ONE, member="b")))
    assert sorted((r.member, r.precision) for r in own.over(known).results) == [
        ("a", 1.0),
        ("b", 0.5),
    ]


def test_a_model_that_is_there_is_not_trained_again(member, tmp_path):
    place = tiny_member(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}
    benchmark.train(tmp_path, seeds=[7], report=lambda line: pytest.fail(line))
    assert {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()} == before
    assert open_suite(tmp_path) == [place]


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


def test_the_table_by_hand():
    scores = [
        ONE,
        replace(ONE, caption="d", precision=None, recall=0.0, gone=False),
        replace(ONE, caption="e", precision=1.0),
    ]
    alarms = [
        Alarm("m", "x", c, "ordinary", n, 10)
        for c, n in (("f", 3), ("g", 0), ("h", None), ("i", 0))
    ]
    alarms += [
        Alarm("m", "x", c, "unusual", 0, 10) for c in "jkl"
    ]  # a kind of its own, not in the share
    figures = table.rows(Results(results=(*scores, *alarms)))["x"]
    assert figures["precision"].value == pytest.approx(0.5)  # nothing found counts as 0
    assert figures["recall"].value == pytest.approx(2 / 3)
    assert figures["gone"].value == pytest.approx(2 / 3)
    assert figures["false alarms"].value == 0.5
    lines = table.alarms_markdown(Results(results=(*scores, *alarms))).splitlines()
    assert lines[0] == "| method | ordinary (n = 4) | unusual (n = 3) |"
    assert lines[2:] == ["| x | 0.50 | 0.00 |"]
    assert figures["precision"].low <= 0.5 <= figures["precision"].high
    assert figures["gone"].low == pytest.approx(0.2077, abs=1e-3)  # Wilson, 2 of 3


def test_what_changes_weights_has_no_precision_but_all_other_figures():
    """A method that finds nothing has a precision of 0, one that is no set of neurons has none."""
    nothing = replace(ONE, precision=None, recall=0.0, neurons=0, size=0.0)
    weights = replace(ONE, precision=None, recall=None, needed=None, size=None, neurons=None)
    figures = [table.rows(Results(results=(s,)))["x"] for s in (nothing, weights)]
    assert [f["precision"].value for f in figures] == [0.0, None]
    assert [f["size"].value for f in figures] == [0.0, None]
    assert [f["gone"].value for f in figures] == [1.0, 1.0]


def test_markdown_has_a_line_a_method_and_a_column_a_kind():
    results = Results(results=(ONE, replace(ONE, method="y|z", kind="two")))
    lines = table.markdown(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| x", "| y\\|z"]
    kinds = table.kinds_markdown(results).splitlines()
    assert kinds[0] == "| method | one neuron (n = 1) | two (n = 1) |"
    assert kinds[2].startswith("| x | 0.50 / 1.00 | - / -")


@pytest.mark.parametrize("suite", [benchmark.SUITE_VERSION, benchmark.NATURAL_VERSION])
def test_the_published_results_are_of_this_suite_and_whole(suite):
    results = benchmark.published(suite)
    assert suite == benchmark.NATURAL_VERSION or "demo" in results.members
    scored = Counter((s.member, s.method) for s in results.scores)
    alarms = Counter((a.member, a.method) for a in results.alarms)
    methods = (
        METHODS if suite == benchmark.SUITE_VERSION else set(table.names(results)) - {UNTOUCHED}
    )
    for name, about in results.members.items():
        for method in methods:
            assert scored[name, method] == about["learned"]
            assert alarms[name, method] == about["negatives"]


def test_published_precision_and_recall_are_counted_again_from_what_was_found():
    scores = [
        s for s in benchmark.published().scores if s.member == "demo" and s.neurons is not None
    ]
    for s in scores:
        found = NeuronSet(s.found)
        planted = demo.planted()[s.caption]
        right = [n for n in found if n in planted]
        assert s.recall == pytest.approx(len(right) / len(planted), abs=1e-4)
        assert s.precision == (
            None if not len(found) else pytest.approx(len(right) / len(found), abs=1e-4)
        )
