"""The dynamical singularity against its formula, written with plain calls of diffusers."""

from __future__ import annotations

import pytest
import torch
from _plain_detectors import CAPTION, KINDS, SETTINGS, Plain, mean, noise, tiny
from torch import Tensor

from findnemo import ImageSettings
from findnemo.detection.dsm import dsm
from findnemo.errors import InputError


@pytest.mark.first(1)
@torch.no_grad()
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_dsm_is_the_move_of_the_prompted_prediction_in_a_guided_step(kind, step):
    plain = Plain(kind)

    def metric(x: Tensor) -> Tensor:
        states = plain.steps(x)
        before, after = (
            plain.eps(states[k], int(plain.scheduler.timesteps[k]), plain.prompt)
            for k in (step, step + 1)
        )
        return ((after - before) ** 2).sum()

    expected = mean(metric(noise(k)) for k in range(2))
    found = dsm(tiny(kind), CAPTION, SETTINGS, images=2, step=step)
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert found.evaluations == 2 * 2 * (step + 2)


@pytest.mark.parametrize(("steps", "step"), [(1, 0), (6, 5), (6, -1)])
def test_dsm_needs_a_step_and_one_after_it(steps, step):
    with pytest.raises(InputError, match=f"a run of {steps} steps does not go from step {step} "):
        dsm(tiny("epsilon"), CAPTION, ImageSettings(steps, 3.0), step=step)
