"""Parsed JSON as a declared type, by pydantic."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """The pydantic adapter that reads and writes JSON of a type."""
    return TypeAdapter(kind)


def as_type(kind: Any, value: Any) -> Any:
    """A parsed JSON value as a type. Raises ValueError with the first fault and its place.

    >>> as_type(dict[str, list[int]], {"down": [1, 2]})
    {'down': [1, 2]}
    """
    try:
        return adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(fault(error)) from None


def fault(error: ValidationError) -> str:
    """The first fault of a value, and its place: `memories.0.caption: Field required`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
