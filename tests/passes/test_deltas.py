"""Noise differences: by hand, of several captions, in batches that do not fit, and errors."""

from __future__ import annotations

import pytest
import torch
from _replication import PROMPT, some_sets

from findnemo import NeuronSet
from findnemo.errors import DeviceError
from findnemo.localization.replication import Replication
from findnemo.passes import Probe, Rows
from findnemo.settings import Settings


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


def test_a_first_pass_that_does_not_fit_is_halved_and_gives_the_same(model, monkeypatch):
    guess = NeuronSet({list(model.value_layers)[2]: [0, 4]})
    want = Probe(model, PROMPT, reuse=True).first_deltas(guess)
    monkeypatch.setattr("findnemo.passes.deltas.BATCH", 4)
    probe = Probe(model, PROMPT, reuse=True)
    for a, b in zip(probe.first_deltas(guess), want, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    torch.testing.assert_close(
        probe.deltas(guess), Probe(model, PROMPT).deltas(guess), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_deltas_are_scaled_differences_of_what_is_predicted_and_the_noise(tiny, guidance):
    latents = tiny.noise("a fox", [4])
    timestep = tiny.timesteps(50)[0]
    with torch.no_grad():
        eps = tiny.predict_noise(latents, timestep, tiny.encode(["a fox"]))
        if guidance is not None:
            without = tiny.predict_noise(latents, timestep, tiny.unconditional())
            eps = without + guidance * (eps - without)
    delta = eps - latents
    expected = (delta - delta.min()) / (delta.max() - delta.min())
    found = Probe(tiny, "a fox", Settings(guidance=guidance), samples=[4]).deltas()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_rows_of_several_captions_are_what_each_caption_has_by_itself(tiny):
    rows = Rows(tiny, [("a fox", 0), ("the sea", 3)], Settings(), tiny.encode(["a fox", "the sea"]))
    neurons = NeuronSet({next(iter(tiny.value_layers)): [0, 5]})
    fox = Probe(tiny, "a fox", samples=[0]).deltas(neurons)
    sea = Probe(tiny, "the sea", samples=[3]).deltas(neurons)
    torch.testing.assert_close(rows.deltas(neurons), torch.cat([fox, sea]), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.deltas(neurons, keep=[1]), sea, atol=1e-5, rtol=0)
