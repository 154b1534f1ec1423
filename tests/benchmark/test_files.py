"""Files of a suite: states of trainings that go on as if nothing had happened, and JSON and tensors
that are refused with the file's name.
"""

from __future__ import annotations

import pytest
import torch
from typing_extensions import TypedDict

from findnemo.benchmark.files import (
    Neurons,
    follow,
    read_json,
    read_state,
    read_tensors,
    write_json,
    write_state,
)
from findnemo.errors import InputError
from findnemo.neurons import NeuronSet


def begun():
    """A layer, its running average, and its optimizer."""
    torch.manual_seed(3)
    layer = torch.nn.Linear(4, 3)
    weights = dict(layer.named_parameters())
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    return layer, weights, average, torch.optim.AdamW(layer.parameters(), lr=0.1)


def step(layer, weights, average, optimizer, k):
    optimizer.zero_grad()
    layer(torch.full((2, 4), float(k))).square().sum().backward()
    optimizer.step()
    follow(average, weights, 0.9)


def test_a_training_that_is_read_back_takes_the_same_next_step(tmp_path):
    whole = begun()
    for k in range(4):
        step(*whole, k)
    stopped = begun()
    for k in range(2):
        step(*stopped, k)
    write_state(tmp_path / "state.safetensors", *stopped[1:], 2)
    again = begun()
    assert read_state(tmp_path / "state.safetensors", *again[1:]) == 2
    for k in range(2, 4):
        step(*again, k)
    for name, weight in whole[1].items():
        assert torch.equal(again[1][name], weight)
        assert torch.equal(again[2][name], whole[2][name])


def test_without_a_file_a_training_begins_at_its_beginning(tmp_path):
    _, weights, average, optimizer = begun()
    before = weights["weight"].clone()
    assert read_state(tmp_path / "none.safetensors", weights, average, optimizer) == 0
    assert torch.equal(weights["weight"], before)


def test_tensors_that_cannot_be_read_are_named_with_the_way_out(tmp_path):
    damaged = tmp_path / "pool.safetensors"
    damaged.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"pool\.safetensors cannot be read .* made again"):
        read_tensors(damaged)


class Own(TypedDict):
    """The shape of a file."""

    version: int
    found: dict[str, Neurons]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"version": 2, "found": {}}', "version 2, this version of findnemo reads 1 or '1.1'"),
        ('{"version": 1, "found": {"a": {"layer": [-1]}}}', "found.a.layer.0: "),
        ('{"version": 1, "found": {"a": {"layer": [1.5]}}}', "found.a.layer.0: "),
        ("[]", "it: Input should be an object"),
        ("{", "JSON"),
    ],
)
def test_json_of_another_shape_is_refused_with_the_file_and_the_place(tmp_path, text, said):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"own\.json is no answer: ") as refused:
        read_json(path, Own, "is no answer", {"version": (1, "1.1")})
    assert said in str(refused.value)


def test_json_is_read_as_neurons_and_a_value_that_is_none_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "own.json"
    write_json({"a": {"layer": [1, 2]}}, path)
    with pytest.raises(TypeError):
        write_json({"b": object()}, path)
    assert read_json(path, dict[str, Neurons], "", {}) == {"a": NeuronSet({"layer": [1, 2]})}
    assert list(tmp_path.iterdir()) == [path]
