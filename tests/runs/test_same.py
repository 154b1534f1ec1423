"""Work on a run goes on with the model that began it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from findnemo.errors import MismatchError
from findnemo.models.identity import Identity, Part
from findnemo.runs import Run
from findnemo.runs._same import MADE_WITH, require_same


def model(schedule="linear", vae="first"):
    """What a run asks of a model: its parts."""
    parts = {"scheduler": Part({"schedule": schedule}), "vae": Part({"name": vae})}
    identity = Identity(parts)
    return SimpleNamespace(identity=identity, fingerprint=identity.fingerprint, source="model")


def begun(path, pictures):
    """A run that the model began, with pictures or without."""
    kept = model().identity
    settings = {"model": kept.fingerprint, "identity": kept.to_json(pictures=pictures)}
    return Run.create(path, settings)


def test_another_model_is_refused_with_what_differs(tmp_path):
    with begun(tmp_path / "run", pictures=True) as run:
        require_same(run, model())
        with pytest.raises(
            MismatchError, match=r"schedule 'cosine' instead of 'linear'.*new --out"
        ):
            require_same(run, model("cosine"))


def test_a_run_that_began_without_pictures_keeps_what_makes_its_first(tmp_path):
    with begun(tmp_path / "run", pictures=False) as run:
        require_same(run, model(vae="other"))  # no picture is made
        assert run.meta(MADE_WITH) is None
        require_same(run, model(), pictures=True)
        assert run.meta(MADE_WITH) == {"vae": {"settings": {"name": "first"}}}
        require_same(run, model(), pictures=True)
        require_same(run, model(vae="other"))
        with pytest.raises(
            MismatchError, match=r"the pictures in .*name 'other' instead of 'first'"
        ):
            require_same(run, model(vae="other"), pictures=True)


def test_to_a_run_of_an_earlier_findnemo_nothing_is_added(tmp_path):
    with Run.create(tmp_path / "run", {"model": "0" * 32}) as run:
        require_same(run, model("cosine"), pictures=True)
        assert run.meta(MADE_WITH) is None
