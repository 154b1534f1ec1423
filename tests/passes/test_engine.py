"""A compiled model says what the plain one says, for every set and size of batch, or refuses to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _replication import model_with_text
from _tiny_transformers import tiny_pixart
from _tiny_unets import tiny_lcm, tiny_sdxl

import findnemo
from findnemo import Model, NeuronSet, Settings
from findnemo.edits import masks
from findnemo.errors import EditError
from findnemo.passes import Probe, spending

PROMPT = "a red fox"
SETTINGS = Settings(samples=3)
# the same graph; inductor takes minutes on a CPU
BACKENDS = [pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor")]


@pytest.fixture(scope="module")
def plain() -> Model:
    return model_with_text("epsilon")


@pytest.fixture(scope="module", params=BACKENDS)
def fast(request, plain) -> Model:
    return findnemo.compiled(plain, backend=request.param)


def test_deltas_are_those_of_the_plain_model_for_every_set_and_batch(plain, fast):
    layers = list(plain.value_layers)
    sets = [
        NeuronSet(),
        NeuronSet({layers[0]: range(12)}),
        NeuronSet({layers[3]: [1], layers[6]: range(9)}),
    ]
    usual = Probe(plain, PROMPT, SETTINGS)
    quick = Probe(fast, PROMPT, SETTINGS, reuse=True)
    for neurons in sets:
        with spending() as spent:
            found = quick.deltas(neurons)
        assert spent.evaluations == 3  # what fills a batch up is not counted
        torch.testing.assert_close(found, usual.deltas(neurons), atol=1e-4, rtol=0)
    assert not torch.allclose(usual.deltas(sets[1]), usual.deltas(), atol=1e-2)
    scales = masks(plain, sets)  # one set a sample
    torch.testing.assert_close(
        quick.scaled_deltas(scales, [0, 1, 2]),
        usual.scaled_deltas(scales, [0, 1, 2]),
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_sdxl, tiny_lcm, tiny_pixart])
def test_a_compiled_model_is_told_what_there_is_beside_the_tokens(make):
    model = findnemo.load(make())
    fast = findnemo.compiled(model, backend="aot_eager")
    neurons = NeuronSet({next(iter(model.value_layers)): [0, 1]})
    usual, quick = (Probe(m, PROMPT, SETTINGS).deltas(neurons) for m in (model, fast))
    torch.testing.assert_close(quick, usual, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_search_finds_the_same(plain, fast):
    calibration = findnemo.calibrate(
        plain, ["a cat", "two dogs", "snow", "@@@@"], settings=SETTINGS
    )
    tau = findnemo.score(plain, PROMPT, settings=SETTINGS) - 1e-3
    found = [findnemo.localize(m, PROMPT, replace(calibration, tau=tau)) for m in (plain, fast)]
    assert found[0].neurons == found[1].neurons
    assert found[0].score_before == pytest.approx(found[1].score_before, abs=1e-4)


def test_the_plain_model_is_left_as_it_was(plain, fast):
    Probe(fast, PROMPT, SETTINGS).deltas()
    assert plain.engine is None
    assert not any(layer._forward_hooks for layer in plain.value_layers.values())
    plain.check_editable()


def test_a_compiler_that_loses_the_edit_is_caught(plain, monkeypatch):
    def forgetful(function, **options):
        def run(latents, timestep, text, masks):
            return function(
                latents, timestep, text, {n: torch.ones_like(m) for n, m in masks.items()}
            )

        return run

    monkeypatch.setattr(torch, "compile", forgetful)
    with pytest.raises(EditError, match="differ by"):
        Probe(findnemo.compiled(plain), PROMPT, SETTINGS).deltas()
