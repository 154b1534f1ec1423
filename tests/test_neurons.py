"""`NeuronSet` is a set of (layer, index) pairs, and a value: what holds for
Python's sets must hold for it.
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from findnemo.errors import InputError
from findnemo.neurons import EMPTY, NeuronSet

LAYERS = ["down_blocks.0.attn2.to_v", "down_blocks.1.attn2.to_v", "mid_block.attn2.to_v"]
pairs = st.sets(st.tuples(st.sampled_from(LAYERS), st.integers(0, 9)))


@given(pairs, pairs)
def test_algebra_is_that_of_sets(a, b):
    x, y = NeuronSet.of(a), NeuronSet.of(b)
    assert set(x | y) == a | b
    assert set(x & y) == a & b
    assert set(x - y) == a - b
    assert (x <= y) == (a <= b)
    assert (x == y) == (a == b)
    assert len(x | y) == len(a | b)
    assert all(neuron in x for neuron in a)
    assert all((neuron in x) == (neuron in a) for neuron in b)
    assert x.layer(LAYERS[0]) == NeuronSet.of(n for n in a if n[0] == LAYERS[0])


@given(st.lists(st.tuples(st.sampled_from(LAYERS), st.integers(0, 9))))
def test_layers_are_sorted_tuples_without_duplicates_or_empty_layers(neurons):
    layers = NeuronSet.of(neurons).layers
    assert set(layers) == {layer for layer, _ in neurons}
    for name, indices in layers.items():
        assert indices == tuple(sorted({i for layer, i in neurons if layer == name}))
        assert all(type(i) is int for i in indices)


@given(pairs, st.randoms())
def test_equal_sets_have_equal_hashes_whatever_the_order(a, random):
    shuffled = list(a)
    random.shuffle(shuffled)
    assert NeuronSet.of(a) == NeuronSet.of(shuffled)
    assert hash(NeuronSet.of(a)) == hash(NeuronSet.of(shuffled))


def test_len_counts_neurons_not_layers():
    assert len(NeuronSet({LAYERS[0]: [1, 2, 2], LAYERS[1]: [1], LAYERS[2]: []})) == 3
    assert len(EMPTY) == 0
    assert not EMPTY


def test_a_set_cannot_be_changed_through_its_layers():
    neurons = NeuronSet({LAYERS[0]: [1]})
    neurons.layers[LAYERS[1]] = (2,)
    assert neurons == NeuronSet({LAYERS[0]: [1]})


def test_is_not_equal_to_the_mapping_it_was_made_of_and_holds_only_pairs():
    neurons = NeuronSet({LAYERS[0]: [1]})
    assert neurons != {LAYERS[0]: (1,)}
    assert LAYERS[0] not in neurons
    assert (LAYERS[0], 2) not in neurons


@pytest.mark.parametrize(
    "index", [-1, True, 1.0, "1", None, np.float32(1.5), np.bool_(True), torch.tensor(1.5)]
)
def test_an_index_that_is_no_whole_number_from_zero_is_refused(index):
    with pytest.raises(InputError, match=r"is not a neuron index.* in layer mid"):
        NeuronSet({"mid": [index]})


def test_whole_numbers_of_numpy_and_torch_are_indices():
    for indices in (np.array([3, 1]), torch.tensor([1, 3])):
        assert NeuronSet({"mid": indices}) == NeuronSet({"mid": [1, 3]})


@given(pairs)
def test_json_form_makes_the_same_set(a):
    assert NeuronSet(json.loads(json.dumps(NeuronSet.of(a).to_json()))) == NeuronSet.of(a)


@pytest.mark.parametrize("name", ["neurons.json", "neurons.safetensors"])
@pytest.mark.parametrize("neurons", [NeuronSet({LAYERS[2]: [7, 0], LAYERS[0]: [1279]}), EMPTY])
def test_files_hold_the_whole_set(tmp_path, name, neurons):
    neurons.save(tmp_path / name)
    assert NeuronSet.load(tmp_path / name) == neurons


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.json", b'{"layers": {"mid": [1,'),
        ("binary.json", b"\xff\xfe\x00"),
        ("list.json", b"[1, 2]"),
        ("no-layers.json", b'{"neurons": {}}'),
        ("layers-are-a-list.json", b'{"layers": [1, 2]}'),
        ("a-number.json", b'{"layers": {"mid": 5}}'),
        ("a-text.json", b'{"layers": {"mid": "12"}}'),
        ("negative.json", b'{"layers": {"mid": [-1]}}'),
        ("fraction.json", b'{"layers": {"mid": [1.5]}}'),
        ("junk.safetensors", b"this is not a safetensors file"),
        ("empty.safetensors", b""),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not a neuron file"):
        NeuronSet.load(tmp_path / name)


@pytest.mark.parametrize("tensor", [torch.tensor([1.0]), torch.tensor(3), torch.tensor([[1, 2]])])
def test_safetensors_that_hold_no_indices_are_refused(tmp_path, tensor):
    save_file({"mid": tensor}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is not a neuron file"):
        NeuronSet.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["no.json", "no.safetensors"])
def test_a_missing_file_is_refused_by_name(tmp_path, name):
    with pytest.raises(InputError, match=name):
        NeuronSet.load(tmp_path / name)
