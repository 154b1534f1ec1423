"""Fixtures of the tests of runs. Tests must leave them as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import findnemo


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory) -> Path:
    """The directory of the model of the small audit, which workers load."""
    from _audited import small_model

    folder = tmp_path_factory.mktemp("model")
    small_model().pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def calibration(saved_model) -> findnemo.Calibration:
    """Of the saved model, with tau so that three of the six captions reach it."""
    from _audited import SETTINGS, TEXTS
    from _divided import HOLDOUT, two_by_two

    model = findnemo.load(saved_model)
    with two_by_two():
        made = findnemo.calibrate(model, HOLDOUT[:3], settings=SETTINGS)
        scores = sorted(findnemo.score(model, text, settings=SETTINGS) for text in TEXTS)
    return replace(made, tau=(scores[2] + scores[3]) / 2)


@pytest.fixture(scope="module")
def model(saved_model) -> findnemo.Model:
    """The saved model, as workers load it."""
    return findnemo.load(saved_model)


@pytest.fixture(scope="module")
def small_groups():
    """Two captions share passes, on one thread."""
    from _divided import two_by_two

    with two_by_two():
        yield


@pytest.fixture(scope="session")
def undivided(tmp_path_factory, saved_model, calibration) -> Path:
    """The run of the small audit, made in one process."""
    from _divided import run_with, two_by_two

    model = findnemo.load(saved_model)
    with two_by_two():
        return run_with(tmp_path_factory.mktemp("whole") / "run", model, calibration)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A run of three captions, of which the first two have neurons, with a calibration."""
    from _tiny import SMALL, tiny_pipeline
    from _tiny_files import make_run

    model = findnemo.load(tiny_pipeline(**SMALL))
    neurons = findnemo.NeuronSet({next(iter(model.value_layers)): [0, 1]})
    captions = {"a red fox": neurons, "Foxes": neurons, "a moon": findnemo.NeuronSet()}
    path = make_run(tmp_path_factory.mktemp("finished") / "run", model, captions)
    findnemo.demo.calibration().save(path / "calibration")
    return path
