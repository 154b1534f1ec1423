"""Results of the benchmark as files, and those that are published."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from _scores import ONE, ONE_NATURAL

from findnemo import benchmark, demo
from findnemo.benchmark import table
from findnemo.benchmark.methods import METHODS
from findnemo.benchmark.natural_scoring import UNTOUCHED
from findnemo.benchmark.results import Results
from findnemo.benchmark.scoring import Alarm
from findnemo.errors import InputError
from findnemo.neurons import NeuronSet


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


def test_results_read_back_what_they_wrote_and_are_of_one_suite(tmp_path):
    results = Results(
        {"m": {}},
        (ONE_NATURAL, Alarm("m", "x", "d", "ordinary", None, 1)),
        {"date": "today"},
        benchmark.NATURAL_VERSION,
    )
    results.save(tmp_path / "r.json")
    assert Results.load(tmp_path / "r.json", benchmark.NATURAL_VERSION) == results
    with pytest.raises(InputError, match=r"holds no results of suite 1\.1"):
        Results.load(tmp_path / "r.json")
