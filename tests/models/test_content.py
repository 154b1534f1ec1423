"""The content of weights: a stamp changes with every value, digests compare across dtypes."""

from __future__ import annotations

import pytest
import torch

from findnemo.models.content import digests, same_weights, stamp


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
