"""The benchmark and the check of the demo model, in Python."""

from __future__ import annotations

import pytest
import torch
from _command import cli

from findnemo import tasks
from findnemo.benchmark import NATURAL_VERSION, published
from findnemo.benchmark.demo_check import CheckFigure
from findnemo.errors import InputError


def test_the_demo_model_is_checked(monkeypatch):
    asked = []

    def check(model, progress, limit):
        asked.append((model.source, limit, torch.get_num_threads()))
        progress("memories", 1, 1)
        return [CheckFigure("AUROC", 0.5, ">= 0.99", reached=False, n=1)]

    monkeypatch.setattr("findnemo.tasks.benchmarking.check", check)
    told = []
    listener = tasks.Listener(progress=lambda *given: told.append(given))
    figures = tasks.check_demo(2, tasks.Workers(threads=1), listener)
    assert asked == [("demo", 2, 1)]
    assert told == [("memories", 1, 1)]
    result = cli("demo", "--check", "--limit", 2, "--json", "--quiet")
    assert (result.status, result.json) == (1, [f.to_json() for f in figures])


def test_the_published_results_are_those_of_the_suite(tmp_path):
    shown = tasks.benchmark(tmp_path, tasks.Scoring(natural=True, published=True))
    assert shown == published(NATURAL_VERSION)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scoring", "said"),
    [
        (tasks.Scoring(methods="nemo9"), "'nemo9' is not known: use findnemo"),
        (tasks.Scoring(train=True), "give its folder"),
        (tasks.Scoring(train=True, suite="suite", natural=True), "are of planted memories"),
        (tasks.Scoring(suite="nowhere"), "holds no trained models"),
    ],
)
def test_a_benchmark_that_cannot_be_is_refused(scoring, said, tmp_path):
    with pytest.raises(InputError, match=said):
        tasks.benchmark(tmp_path, scoring)
    assert list(tmp_path.iterdir()) == []
