"""Captions by their text alone: what is cut off changes nothing, and scores are what they say."""

from __future__ import annotations

import pytest
import torch
from _tiny_transformers import tiny_sd3

import findnemo
from findnemo.detection import Drives, Unusual
from findnemo.detection.by_text import Activations, is_causal
from findnemo.errors import InputError, MismatchError, ModelError
from findnemo.neurons import NeuronSet

ORDINARY = ["a cat", "two dogs in the snow", "a red fox by a tree", "an owl", "the sea at night"]
CAPTIONS = ["a grey owl", "x", "a very long caption of many words, and then some more of them"]


def own_activations(model, layer, caption):
    """|activation| on a caption's own tokens, of the whole padded sequence: (tokens, width)."""
    ids = model.pipeline.tokenizer(caption).input_ids
    with torch.no_grad():
        values = model.denoiser.get_submodule(layer)(model.encode([caption]).tokens)[0].abs()
    return values[1 : len(ids)]


@pytest.mark.slow
def test_sequences_cut_to_their_length_give_what_the_padded_ones_do(model):
    assert is_causal(model)
    layers = list(model.layers_of("all"))
    read = Activations(model, dict.fromkeys(layers))
    for pool, pooled in (("mean", lambda v: v.mean(0)), ("largest", lambda v: v.amax(0))):
        rows = read([*CAPTIONS, *ORDINARY], pool)
        for caption, row in zip([*CAPTIONS, *ORDINARY], rows, strict=True):
            wanted = torch.cat([pooled(own_activations(model, name, caption)) for name in layers])
            assert torch.allclose(row, wanted, atol=1e-5)


def test_some_neurons_are_those_of_all(model):
    layer, other = list(model.layers_of("all"))[:2]
    whole = Activations(model, {layer: None, other: None})(CAPTIONS, "mean")
    some = Activations(model, {layer: (1, 3), other: (0,)})(CAPTIONS, "mean")
    width = model.widths("all")[layer]
    assert torch.allclose(some, whole[:, [1, 3, width]], atol=1e-6)


def test_who_is_asked_together_changes_nothing(model):
    unusual = Unusual(model, ORDINARY)
    alone = torch.cat([unusual([caption]) for caption in CAPTIONS])
    assert torch.allclose(unusual(CAPTIONS), alone, rtol=1e-4)


def test_unusual_is_the_mahalanobis_distance_of_the_shrunk_covariance(model):
    rows = Activations(model, dict.fromkeys(model.value_layers))([*ORDINARY, *CAPTIONS], "largest")
    known = rows[: len(ORDINARY)].double()
    z = (rows.double() - known.mean(0)) / known.std(0)
    covariance = z[: len(ORDINARY)].T @ z[: len(ORDINARY)] / len(ORDINARY)
    shrunk = 0.9 * covariance + 0.1 * torch.eye(len(covariance), dtype=torch.float64)
    wanted = (z @ torch.linalg.inv(shrunk) * z).sum(1)[len(ORDINARY) :]
    assert torch.allclose(Unusual(model, ORDINARY)(CAPTIONS), wanted, rtol=1e-4)


def test_drives_are_the_part_of_a_memory_that_a_caption_explains(model):
    first, second = list(model.layers_of("all"))[:2]
    memories = {
        "a red fox": NeuronSet({first: [0, 2]}),
        "an old owl": NeuronSet({second: [1]}),
        "nothing": NeuronSet(),
    }
    drives = Drives(model, memories, ORDINARY)

    def z(caption, layer, neurons):
        rows = torch.stack([own_activations(model, layer, c).mean(0) for c in ORDINARY]).double()
        own = own_activations(model, layer, caption).mean(0).double()
        return ((own - rows.mean(0)) / rows.std(0))[neurons]

    for caption, (value, memory, _) in zip(CAPTIONS, drives.largest_drives(CAPTIONS), strict=True):
        each = {}
        for name, layer, neurons in (("a red fox", first, [0, 2]), ("an old owl", second, [1])):
            wanted = z(name, layer, neurons)
            gap = z(caption, layer, neurons) - wanted
            each[name] = 1 - float(gap.square().sum() / wanted.square().sum())
        assert value == pytest.approx(max(each.values()), rel=1e-3, abs=1e-3)
        assert memory == max(each, key=lambda name: each[name])
    assert drives(["a red fox", "an old owl"]).tolist() == pytest.approx([1, 1])
    (_, memory, neurons), _ = drives.largest_drives(["a red fox", "an old owl"])
    assert (memory, neurons) == ("a red fox", memories["a red fox"])


def test_what_cannot_be_put_in_order_is_refused(model):
    layer = next(iter(model.value_layers))
    with pytest.raises(InputError, match="no neurons of a memory"):
        Drives(model, {"a cat": NeuronSet()}, ORDINARY)
    with pytest.raises(InputError, match="an order of captions needs hold-out captions"):
        Unusual(model, [])
    for unknown in (NeuronSet({"other.to_v": [0]}), NeuronSet({layer: [10**6]})):
        with pytest.raises(MismatchError, match="has no neurons"):
            Drives(model, {"a cat": unknown}, ORDINARY)
    with pytest.raises(ModelError, match="see the image too"):
        Unusual(findnemo.load(tiny_sd3()), ORDINARY)


def test_a_neuron_that_never_varies_says_nothing(model):
    layer = next(iter(model.value_layers))
    with findnemo.deactivate(model, NeuronSet({layer: range(model.widths()[layer])})):
        values = Unusual(model, ORDINARY)(CAPTIONS)
    assert torch.isfinite(values).all()
