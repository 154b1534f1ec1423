"""Fixtures of the tests of tasks. Tests must leave them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

import findnemo

TEXTS = ("a red fox", "Foxes", "a moon")


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory) -> findnemo.Model:
    """A tiny model that was loaded from its directory."""
    from _tiny import SMALL, tiny_pipeline

    place = tmp_path_factory.mktemp("model") / "model"
    tiny_pipeline(**SMALL).save_pretrained(place)
    return findnemo.load(place)


@pytest.fixture(scope="session")
def finished_run(saved_model, tmp_path_factory) -> Path:
    """A run of three captions, of which the first two have neurons."""
    from _tiny_files import make_run

    neurons = findnemo.NeuronSet({next(iter(saved_model.value_layers)): [0, 1]})
    captions = dict(zip(TEXTS, (neurons, neurons, findnemo.NeuronSet()), strict=True))
    return make_run(tmp_path_factory.mktemp("held") / "run", saved_model, captions)
