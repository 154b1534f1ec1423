"""The tiny model, as a member of the suite and with a plan for memories in it.

What is opened or made once stays as it is.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from _planting import CAPTION, HOLDOUT
from _small_plan import ORDINARY, PLAN
from _tiny import tiny_pipeline
from _tiny_suite import tiny_member
from PIL import Image

import findnemo
from findnemo.benchmark import Task, methods, open_member
from findnemo.benchmark.learned_mask import learned_mask
from findnemo.benchmark.pool import build_pool
from findnemo.images import ImageSettings


@pytest.fixture(scope="session")
def member(tmp_path_factory):
    """A member of suite 1 with one memory in one neuron."""
    return open_member(tiny_member(tmp_path_factory.mktemp("suite")))


@pytest.fixture
def planted_task(member, monkeypatch):
    """The task of its memory."""
    monkeypatch.setattr(methods, "learned_mask", partial(learned_mask, steps=2))
    return Task(
        member.model, CAPTION, member.calibration, tuple(HOLDOUT), images=ImageSettings(3, 2.0)
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder with the pictures of the plan."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def few(patch):
    """Have a teacher draw few pictures in few steps."""
    patch.setattr("findnemo.benchmark.pool.OWN", 2)
    patch.setattr("findnemo.benchmark.pool.STEPS", 2)


@pytest.fixture
def few_pictures():
    """A teacher draws few pictures in few steps."""
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        yield


@pytest.fixture(scope="session")
def base():
    """The model in which the memories of the plan are planted."""
    return findnemo.load(tiny_pipeline("v_prediction"), device="cpu")


@pytest.fixture(params=["epsilon", "v_prediction"])
def scheduler(request):
    return tiny_pipeline(request.param).scheduler


@pytest.fixture(scope="session")
def pool(base, pictures, tmp_path_factory):
    """Its training data."""
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        return build_pool(
            base,
            PLAN,
            ORDINARY,
            pictures,
            tmp_path_factory.mktemp("pool") / "pool.safetensors",
            lambda line: None,
        )
