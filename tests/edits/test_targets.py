"""The layers and neurons that an edit names."""

import pytest
import torch
from _edited import edited, place

from findnemo import NeuronSet, prune
from findnemo.edits import lora_weights, widths_of
from findnemo.errors import EditError, InputError, MismatchError


def test_a_module_named_twice_is_scaled_once(tiny):
    first, second = (
        f"down_blocks.0.attentions.{k}.transformer_blocks.0.attn2.to_v" for k in (0, 1)
    )
    place(tiny, second).to_v = tiny.value_layers[first]
    both = NeuronSet({first: [1, 2], second: [2, 3]})
    one = NeuronSet({first: [1, 2, 3]})
    assert torch.equal(edited(tiny, both, 0.5), edited(tiny, one, 0.5))
    a, b = (prune(tiny, n, 0.5).unet.state_dict() for n in (both, one))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(a[f"{second}.weight"], a[f"{first}.weight"])


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf"), "0", None, 1e39])
def test_a_factor_that_is_none_is_refused(model, neurons, factor):
    for edit in (prune, lora_weights, edited):
        with pytest.raises(InputError, match=r"is not a factor for neurons: give a finite number"):
            edit(model, neurons, factor)


def test_widths_are_those_of_the_layers_named_and_the_last_neuron_is_one(model, neurons):
    assert widths_of(model, neurons) == {
        name: model.value_layers[name].weight.shape[0] for name in neurons.layers
    }
    name = next(iter(neurons.layers))
    width = len(model.value_layers[name].weight)
    assert widths_of(model, NeuronSet({name: [width - 1]})) == {name: width}
    with pytest.raises(EditError, match=rf"no neuron {width} in {name}: it has {width} "):
        widths_of(model, NeuronSet({name: [0, width]}))
    assert widths_of(model, NeuronSet()) == {}


def test_neurons_of_another_model_are_refused_and_those_of_none_are_taken(model, neurons):
    for mark in (None, model.fingerprint):
        assert widths_of(model, NeuronSet(neurons.layers, mark)) == widths_of(model, neurons)
    other = NeuronSet(neurons.layers, "ab" * 32)
    with pytest.raises(MismatchError, match=r"found in another model, abababababab, and .* is"):
        widths_of(model, other)
