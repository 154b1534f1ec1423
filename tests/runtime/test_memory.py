"""Lack of memory: pieces are halved until they fit, and nothing else is taken for it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from findnemo.errors import DeviceError
from findnemo.runtime.memory import Batches, guarding_memory, out_of_memory

CPU = torch.device("cpu")


@given(st.integers(0, 40), st.integers(1, 16), st.integers(1, 16))
def test_every_row_is_done_once_in_order_in_pieces_that_fit(count, size, room):
    def part(rows):
        if rows.stop - rows.start > room:
            raise torch.OutOfMemoryError
        return list(range(count))[rows]

    batches = Batches(CPU, size)
    found = batches(count, part)
    assert [row for piece in found for row in piece] == list(range(count))
    assert all(len(piece) <= room for piece in found)


def test_the_size_that_fits_is_kept_and_memory_released_before_each_smaller_piece():
    released = []
    asked = []

    def part(rows):
        asked.append(rows.stop - rows.start)
        if asked[-1] > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    batches = Batches(CPU, 8, release=lambda: released.append(asked[-1]))
    batches(4, part)
    batches(4, part)
    assert asked == [4, 2, 2, 2, 2]
    assert released == [4]


def test_one_row_that_does_not_fit_is_named_and_other_errors_pass():
    def full(rows):
        raise torch.OutOfMemoryError

    with pytest.raises(DeviceError, match="out of memory on cpu with a single picture"):
        Batches(CPU, 4, "a single picture")(3, full)
    with pytest.raises(RuntimeError, match="another fault"), guarding_memory(CPU, "x"):
        raise RuntimeError("another fault")
    assert not out_of_memory(RuntimeError("another fault"))
