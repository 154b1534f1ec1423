"""Detectors beside each other: figures from the scores that a run holds, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from findnemo.detection import DETECTORS, Score
from findnemo.errors import InputError, NumericalError
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import Run, Serial
from findnemo.runs.detectors import (
    borrows,
    distinct_detectors,
    kept_detectors,
    results,
    run_detectors,
)

HOLDOUT = ("one", "two", "three")
IMAGES = ImageSettings(steps=1, guidance=2.0)


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        yield run


def scored(run, **captions):
    """Record the type and the score of each caption; None for no score."""
    prompts = [Prompt(text, k, kind) for k, (text, (kind, _)) in enumerate(captions.items(), 1)]
    for number, (_, value) in zip(run.add(prompts), captions.values(), strict=True):
        if value is not None:
            found = {"value": value, "evaluations": 2 * number, "seconds": float(number)}
            run.record(number, "detect:counted", found, 1.0)
    return list(run.captions())


def test_figures_are_of_the_scores_that_the_run_holds(run):
    captions = scored(
        run, a=("VM", 0.9), b=("VM", 0.3), c=("TM", 0.8), d=(None, 0.2), e=("none", None)
    )
    run.set_meta("holdout:counted", {"one": 0.1, "two": 0.3})
    (found,) = results(run, captions, HOLDOUT, ["counted"])
    # mean + 1 std of .1 and .3
    assert found.threshold == pytest.approx(0.2 + 0.02**0.5)
    assert (found.captions, found.found, found.failed) == (4, 2, 2)
    assert (found.evaluations, found.seconds) == (5.0, 2.5)
    assert found.evaluation.auroc == 1.0
    assert (found.evaluation.positives, found.evaluation.negatives) == (3, 1)
    assert found.evaluation.accuracy == 0.75
    assert found.verbatim.positives == 2
    assert found.half is None  # of the memorization score alone


def test_where_all_are_memories_every_second_hold_out_caption_stands_for_the_others(run):
    captions = scored(run, a=("VM", 0.9), b=("TM", 0.8))
    assert borrows(captions)
    assert not borrows([])
    kept = dict(zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True))
    run.set_meta("holdout:counted", kept)
    (found,) = results(run, captions, list(kept), ["counted"])
    assert found.evaluation.negatives == found.evaluation.holdout == 2
    assert found.threshold == pytest.approx(0.2 + 0.02**0.5)  # of .1 and .3


def test_unknown_detectors_and_runs_without_results_are_refused(run):
    assert distinct_detectors([" ssim", "edges", "ssim"]) == ("ssim", "edges")
    with pytest.raises(InputError, match="edgy"):
        distinct_detectors(["ssim", "edgy"])
    with pytest.raises(InputError, match="holds no results"):
        kept_detectors(run)


def asked(run, texts, detector, monkeypatch, holdout=HOLDOUT):
    """The captions after a detector was asked; no model is needed for it."""
    monkeypatch.setitem(DETECTORS, "counted", detector)
    prompts = [Prompt(text, k) for k, text in enumerate(texts, 1)]
    pool = Serial(SimpleNamespace(device=torch.device("cpu")))
    return run_detectors(run, prompts, holdout, ["counted"], IMAGES, pool)


def test_a_caption_that_gives_nan_is_failed_and_the_others_are_scored(run, monkeypatch):
    def detector(model, prompt, settings):
        if prompt == "a moon":
            raise NumericalError("the model gives NaN or infinity")
        return Score(float(len(prompt)), 3)

    captions = asked(run, ("a fox", "a moon"), detector, monkeypatch)
    fox, moon = captions
    assert fox.results["detect:counted"]["value"] == 5.0
    assert moon.failed == {"detect:counted": "the model gives NaN or infinity"}
    assert run.meta("holdout:counted") == {text: float(len(text)) for text in HOLDOUT}
    assert kept_detectors(run).results[0].failed == 1


def test_a_caption_that_is_held_out_too_is_refused_and_none_is_entered(run, monkeypatch):
    with pytest.raises(InputError, match="hold-out captions among the captions: 1, such as 'two'"):
        asked(run, ("a fox", "two"), lambda *given: Score(0.5, 1), monkeypatch)
    assert not list(run.captions())


def test_a_detector_that_gives_a_bare_number_is_named(run, monkeypatch):
    with pytest.raises(InputError, match=r"detector 'counted' gives 0\.5: .*Score is needed"):
        asked(run, ("a fox",), lambda model, prompt, settings: 0.5, monkeypatch)
