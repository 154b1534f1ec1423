"""The content of weights: a stamp changes with every value, digests compare across dtypes."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload

from findnemo.models.content import digests, rounded_apart, same_weights, stamp, weights_of


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int8,
        torch.float8_e4m3fn,
        torch.complex64,
    ],
)
@pytest.mark.parametrize("size", [3, 5000, 300_000])
def test_a_stamp_sees_every_change_of_a_value(dtype, size):
    generator = torch.Generator().manual_seed(size)
    plain = torch.randn(size, 2, generator=generator)
    value = torch.view_as_complex(plain) if dtype.is_complex else (40 * plain[:, 0]).to(dtype)
    stamps = {stamp({"a": value, "b": torch.ones(2)})}
    for k in (0, size // 2, size - 1):
        other = value.clone().view(torch.uint8)
        other[k * value.element_size()] ^= 1
        stamps.add(stamp({"a": other.view(dtype), "b": torch.ones(2)}))
    ends = value.clone().view(torch.uint8).view(size, -1)
    ends[[0, size - 1]] = ends[[size - 1, 0]]
    stamps.add(stamp({"a": ends.view(-1).view(dtype), "b": torch.ones(2)}))
    stamps.add(stamp({"a": value, "c": torch.ones(2)}))
    stamps.add(stamp({"a": value.view(1, -1), "b": torch.ones(2)}))
    assert len(stamps) == 7
    assert stamp({"a": value.clone(), "b": torch.ones(2)}) in stamps


def test_digests_compare_weights_at_the_coarser_precision():
    value = torch.linspace(-2, 2, 999) * torch.pi
    loads = {
        kind: digests({"a": value.to(getattr(torch, kind))})
        for kind in ("float64", "float32", "float16", "bfloat16")
    }
    same = {(a, b) for a in loads for b in loads if same_weights(loads[a], loads[b])}
    assert {(a, b) for a in loads for b in loads} - same == {
        ("float16", "bfloat16"),
        ("bfloat16", "float16"),
    }
    half = value.half()
    assert same_weights(digests({"a": half.float()}), digests({"a": half}))
    assert same_weights(digests({"a": half.float()}), digests({"a": half.bfloat16()}))
    assert not same_weights(digests({"a": value}), digests({"a": value + 1e-6}))
    assert not same_weights(digests({"a": half}), digests({"a": torch.nextafter(half, half + 1)}))
    codes = torch.arange(9, dtype=torch.uint8)
    assert not same_weights(digests({"a": codes}), digests({"a": codes.flip(0)}))
    assert not same_weights(digests({"a": codes}), digests({"a": codes.to(torch.int8)}))


def test_two_roundings_of_the_same_weights_are_told_from_two_loads_of_them():
    value = torch.linspace(-2, 2, 99) * torch.pi
    half = digests({"a": value.half()})
    brain = digests({"a": value.bfloat16()})
    assert rounded_apart(half, brain)
    assert rounded_apart(brain, half)
    assert not rounded_apart(half, half)
    assert not rounded_apart(digests({"a": value}), brain)
    ones = torch.ones(9)  # both hold them
    assert not rounded_apart(digests({"a": ones.half()}), digests({"a": ones.bfloat16()}))


def test_weights_are_read_with_buffers_that_no_file_keeps():
    module = torch.nn.BatchNorm1d(3)
    module.register_buffer("table", torch.arange(4.0), persistent=False)
    assert weights_of(module).keys() == {*module.state_dict(), "table"}


@pytest.mark.parametrize("part", ["", "1"])
def test_weights_are_read_from_where_they_are_offloaded(part):
    """Those of the network itself too, whether it is offloaded or a part of it alone."""
    inner = torch.nn.Sequential()
    inner.add_module("norm", torch.nn.BatchNorm1d(3))
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), inner)
    network.scale = torch.nn.Parameter(torch.randn(4))
    network.register_buffer("table", torch.arange(4.0), persistent=False)
    expected = {name: value.clone() for name, value in weights_of(network).items()}
    cpu_offload(network.get_submodule(part), torch.device("cpu"))
    assert inner.norm.weight.is_meta
    assert network.scale.is_meta is (part == "")
    found = weights_of(network)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
