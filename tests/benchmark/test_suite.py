"""A suite is trained and scored; what is there is not made again."""

from __future__ import annotations

import pytest
from _tiny_suite import tiny_member

from findnemo import benchmark
from findnemo.benchmark import METHODS, SUITE_VERSION, Results
from findnemo.benchmark.members import open_suite
from findnemo.benchmark.suite import methods_named, read_answers, run
from findnemo.errors import InputError


def test_a_model_that_is_there_is_not_trained_again(member, tmp_path):
    place = tiny_member(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}
    benchmark.train(tmp_path, seeds=[7], report=lambda line: pytest.fail(line))
    assert {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()} == before
    assert open_suite(tmp_path) == [place]


def test_methods_are_chosen_by_name_and_an_unknown_one_is_refused_with_those_there_are():
    assert list(methods_named(["NeMo", "z-score"])) == ["NeMo", "z-score"]
    assert methods_named(None) == METHODS
    with pytest.raises(InputError, match=r"method 'nemo' is not known: use findnemo, .*, random$"):
        methods_named(["z-score", "nemo"])


def test_answers_that_are_none_are_refused_before_any_model_is_opened(tmp_path):
    assert read_answers(None) == {}
    path = tmp_path / "mine.json"
    path.write_text('{"method": "mine", "answers": {"seed7": {"a caption": {"neurons": {}}}}}')
    assert read_answers(path)["method"] == "mine"
    path.write_text('{"method": "mine", "answers": {"seed7": {"a caption": {"neurons": 3}}}}')
    with pytest.raises(InputError, match="answers are JSON"):
        read_answers(path)


def test_results_of_the_other_suite_are_not_added_to(tmp_path):
    Results(suite=SUITE_VERSION).save(tmp_path / "own.json")
    with pytest.raises(InputError, match="holds no results of suite 2 "):
        run(tmp_path / "own.json", natural=True)
