"""Calibration by a pool of workers is that of one process."""

from __future__ import annotations

import pytest
import torch
from _audited import SETTINGS
from _divided import HOLDOUT
from _pool import FakePool

import findnemo
from findnemo.calibration import Rule
from findnemo.errors import DeviceError
from findnemo.runs import Run, Serial, calibrate_with
from findnemo.runs.calibrating import as_published

pytestmark = pytest.mark.usefixtures("small_groups")


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


def test_a_calibration_lacks_no_chunk_that_kills_its_workers(model, tmp_path):
    pool = FakePool(model, 2, deadly=lambda item: True)
    with pytest.raises(DeviceError, match=r"hold-out prompts from 'hold out 0' on: .*died"):
        calibrate_with(pool, tmp_path / "kept", HOLDOUT[:3], SETTINGS)
    assert not (tmp_path / "kept" / "calibration.json").exists()


def test_the_published_score_is_computed_once_on_the_prompts_of_the_run(model, tmp_path):
    own = findnemo.calibrate(model, HOLDOUT[:3], "findnemo")
    progress = []
    with Run.create(tmp_path / "run", {}) as run:
        made = as_published(run, Serial(model), own, lambda *told: progress.append(told))
        assert as_published(run, Serial(None), own).tau == made.tau  # no model is needed again
        assert as_published(run, Serial(None), made) is made
    paper = findnemo.calibrate(model, HOLDOUT[:3], "paper")
    assert made.tau == pytest.approx(paper.tau, abs=1e-6)
    assert made.settings == paper.settings
    assert all(torch.equal(made.mean[name], own.mean[name]) for name in own.mean)
    assert [done for _, done, _ in progress] == [0, 1, 2, 3]
