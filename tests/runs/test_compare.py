"""Mitigations beside each other on the memorized captions of a run."""

from __future__ import annotations

from _tiny_files import make_run

from findnemo import NeuronSet
from findnemo.runs import Run
from findnemo.runs.compare import failed_methods

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
