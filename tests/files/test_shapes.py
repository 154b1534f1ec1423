"""Parsed JSON as a declared type."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from findnemo.files.shapes import adapter, as_type


@dataclass(frozen=True)
class Memory:
    caption: str
    rows: tuple[int, ...]


def test_a_value_becomes_its_type_and_goes_back():
    value = {"caption": "a fox", "rows": [1, 2]}
    memory = as_type(Memory, value)
    assert memory == Memory("a fox", (1, 2))
    assert adapter(Memory).dump_python(memory, mode="json") == value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([{"caption": "a"}], "0.rows: Field required"),
        ([{"caption": "a", "rows": [1, "x"]}], r"0\.rows\.1: .*integer"),
        (7, "it: .*list"),
    ],
)
def test_the_first_fault_is_named_with_its_place(value, says):
    with pytest.raises(ValueError, match=says):
        as_type(list[Memory], value)
