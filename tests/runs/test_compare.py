"""Mitigations beside each other on the memorized captions of a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from _tiny_files import make_run

from findnemo import NeuronSet
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.runs import AuditPlan, Run, Work
from findnemo.runs.compare import COSTLY, failed_methods, method_neurons, methods
from findnemo.settings import settings_for

TEXTS = ("a red fox", "Foxes", "a moon")


def test_the_mitigations_that_failed_are_told_by_row(model, tmp_path):
    path = make_run(tmp_path / "run", model, {text: NeuronSet() for text in TEXTS})
    with Run.open(path) as opened:
        settings = opened.meta("settings")
    with Run.create(path, settings) as made:
        (first, *_) = made.captions()
        made.record(first.id, "compare:early", {}, 0.1, "no early steps")
        made.record(first.id, "compare@other:late", {}, 0.1, "of other settings")
        made.record(first.id, "localize", {}, 0.1, "no mitigation")
        assert failed_methods(made) == {first.row: "early: no early steps"}


def test_each_mitigation_is_compared_once_after_the_untouched_model():
    assert methods(["nemo", " none", "embedding:target=3", "embedding:target=3.0", "nemo"]) == (
        "none",
        "nemo",
        "embedding:target=3",
    )
    usual = methods()
    assert usual[0] == "none"
    assert not {*COSTLY} & {*usual}
    with pytest.raises(InputError, match="nemoo"):
        methods(["nemoo"])


def test_random_neurons_are_as_many_as_those_of_nemo_and_none_of_them(model, tmp_path):
    layer, width = next(iter(model.widths().items()))
    found = NeuronSet({layer: [0, 1]})
    path = make_run(tmp_path / "run", model, {"a red fox": found, "a moon": NeuronSet()})
    with Run.open(path) as run:
        fox, _ = run.captions()
        about = run.meta("settings")
        plan = AuditPlan(about["search"], about["images"], ImageSettings(steps=2))
        work = Work(run, model, SimpleNamespace(settings=settings_for("findnemo")), plan)
        assert method_neurons(work, fox, "neurons") == found
        with pytest.raises(InputError, match="nemo needs NeMo's neurons: no search was made"):
            method_neurons(work, fox, "nemo")
        listed = replace(fox, results=fox.results | {"listing": fox.results["localize"]})
        assert method_neurons(work, listed, "nemo") == found
        draws = [method_neurons(work, listed, f"random-{k}") for k in (1, 2)]
    for drawn in draws:
        assert [len(at) for at in drawn.layers.values()] == [2]
        assert not drawn & found
        assert max(drawn.layers[layer]) < width
