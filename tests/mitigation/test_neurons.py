"""Neurons switched off: the found ones, and random ones that are never those."""

import pytest
import torch
from _mitigated import CASE, DOWN, MID, NEURONS, PROMPT, call, small_model

from findnemo import NeuronSet, deactivate
from findnemo.errors import EditError
from findnemo.mitigation import Case, found_neurons, random_neurons
from findnemo.mitigation.neurons import drawn_neurons
from findnemo.models import Model


@pytest.fixture
def model() -> Model:
    return small_model()


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_the_found_neurons_are_scaled(model, factor):
    with deactivate(model, NEURONS, factor):
        expected = call(model)
    with found_neurons(model, CASE, factor):
        assert torch.equal(call(model), expected)


def test_random_neurons_are_as_many_per_layer_and_never_found_ones(model):
    half = NeuronSet({MID: range(16), DOWN: range(8)})  # the others are all there is to draw from
    for found in (NEURONS, half):
        for repeat in range(20):
            others = drawn_neurons(model, Case(PROMPT, found), repeat)
            assert {n: len(i) for n, i in others.layers.items()} == {
                n: len(i) for n, i in found.layers.items()
            }
            assert not len(others & found)
    assert drawn_neurons(model, Case(PROMPT, half)) == NeuronSet(
        {MID: range(16, 32), DOWN: range(8, 16)}
    )


def test_every_other_neuron_is_drawn_some_time(model):
    draws = [drawn_neurons(model, Case(PROMPT, NEURONS, seed)) for seed in range(200)]
    assert {i for d in draws for i in d.layers[MID]} == set(range(32)) - set(NEURONS.layers[MID])


def test_a_draw_depends_on_seed_prompt_and_repeat_and_on_nothing_else(model):
    draws = [
        drawn_neurons(model, Case(p, NEURONS, seed), k)
        for p in (PROMPT, "b")
        for seed in (0, 1)
        for k in (1, 2)
    ]
    assert len(set(draws)) == len(draws)
    turned = NeuronSet(dict(reversed(NEURONS.layers.items())))
    assert list(turned.layers) != list(NEURONS.layers)
    assert drawn_neurons(model, Case(PROMPT, turned), 1) == draws[0]


def test_the_drawn_neurons_are_switched_off(model):
    with deactivate(model, drawn_neurons(model, CASE, 2)):
        expected = call(model)
    with random_neurons(model, CASE, 2):
        assert torch.equal(call(model), expected)


def test_a_layer_with_too_few_others_is_named(model):
    case = Case(PROMPT, NeuronSet({MID: range(17)}))
    refused = pytest.raises(EditError, match=f"neurons of {MID}: 17 found, 15 others")
    with refused, random_neurons(model, case):
        pass


@pytest.mark.parametrize("mitigation", [found_neurons, random_neurons])
@pytest.mark.parametrize(
    ("layers", "message"),
    [({"nowhere": [0]}, "no value layer 'nowhere'"), ({MID: [32]}, "no neuron 32")],
)
def test_neurons_that_the_model_lacks_are_refused(model, mitigation, layers, message):
    with (
        pytest.raises(EditError, match=message),
        mitigation(model, Case(PROMPT, NeuronSet(layers))),
    ):
        pass
