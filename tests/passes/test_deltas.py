"""Noise differences: batches that do not fit, and errors."""

from __future__ import annotations

import pytest
import torch
from _replication import PROMPT, some_sets

from findnemo.errors import DeviceError
from findnemo.localization.replication import Replication
from findnemo.passes import Probe


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory"), marks=pytest.mark.slow
        ),
    ],
)
def test_out_of_memory_halves_the_batch_and_changes_no_result(model, monkeypatch, error):
    sets = some_sets(model)
    whole = Replication(Probe(model, PROMPT, reuse=True), tau=-1.0)
    wanted = whole.similarities(sets, range(10))
    gradient = whole.sensitivity([0, 1, 2, 3], 0.5)
    predict = type(model).predict_noise
    sizes = []

    def small_device(self, latents, timestep, text):
        sizes.append(len(latents))
        if len(latents) > 3:
            raise error
        return predict(self, latents, timestep, text)

    monkeypatch.setattr(type(model), "predict_noise", small_device)
    split = Replication(Probe(model, PROMPT, reuse=True), tau=-1.0)
    torch.testing.assert_close(split.similarities(sets, range(10)), wanted, atol=2e-5, rtol=0)
    assert sizes[:4] == [10, 5, 2, 2]
    assert max(sizes[2:]) == 2
    for name, g in split.sensitivity([0, 1, 2, 3], 0.5).items():
        torch.testing.assert_close(g, gradient[name], atol=1e-5, rtol=1e-4)


def test_a_device_too_small_for_one_latent_is_named(model, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "predict_noise", full)
    with pytest.raises(DeviceError, match=r"out of memory on cpu with a single latent.*float16"):
        Probe(model, PROMPT).deltas()


def test_another_runtime_error_is_not_taken_for_a_lack_of_memory(model, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(model), "predict_noise", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Probe(model, PROMPT).deltas()
