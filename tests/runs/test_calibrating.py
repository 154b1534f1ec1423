"""Calibration by a pool of workers is that of one process."""

from __future__ import annotations

import pytest
import torch
from _audited import SETTINGS
from _divided import HOLDOUT, two_by_two
from _pool import FakePool

import findnemo
from findnemo.calibration import Rule
from findnemo.runs import calibrate_with


@pytest.fixture(scope="module", autouse=True)
def small_groups():
    with two_by_two():
        yield


@pytest.fixture(scope="module")
def model(saved_model):
    return findnemo.load(saved_model)


@pytest.mark.slow
def test_calibration_by_parts_is_the_same_to_the_last_bit(model, tmp_path):
    want = findnemo.calibrate(model, HOLDOUT, settings=SETTINGS)
    wide = findnemo.calibrate(
        model, HOLDOUT, settings=SETTINGS, precision=1.0
    )  # settled after the first chunk
    for made, alone in (
        (calibrate_with(FakePool(model, 3, seed=1), tmp_path / "a", HOLDOUT, SETTINGS), want),
        (
            calibrate_with(
                FakePool(model, 3, seed=2, deaths=2),
                tmp_path / "b",
                HOLDOUT,
                SETTINGS,
                Rule(precision=1.0),
            ),
            wide,
        ),
    ):
        assert (made.tau, made.count, made.prompts) == (alone.tau, alone.count, alone.prompts)
        assert torch.equal(made.trajectories, alone.trajectories)
        assert all(
            torch.equal(made.mean[n], alone.mean[n]) and torch.equal(made.std[n], alone.std[n])
            for n in alone.mean
        )
    assert (len(want.trajectories), len(wide.trajectories)) == (130, 64)
