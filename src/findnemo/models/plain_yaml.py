"""The plain part of YAML that configurations of the original code use: nested mappings, by
indentation, and scalars.

Lists and scalars over several lines are ignored; JSON is read too. No YAML library is used, because
these can create objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

OTHER = "{[&*!|>"  # first characters of values that are no plain scalar


def read_yaml(text: str) -> dict[str, Any]:
    """Key -> scalar, as a string without quotes, or mapping.

    Raises ValueError for any other text.

    >>> read_yaml("model: # of 2.x\\n  params:\\n    parameterization: 'v'\\n    linear_start: 0.00085\\n")
    {'model': {'params': {'parameterization': 'v', 'linear_start': '0.00085'}}}
    """
    if "\0" in text:
        raise ValueError("it is not text")
    lines = [line.rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.lstrip().startswith(("#", "---"))]
    if lines and lines[0].lstrip().startswith("{"):
        read = json.loads("\n".join(lines))
        return read if isinstance(read, dict) else {}
    root: dict[str, Any] = {}
    # indentation of a key, and its mapping, if any
    places: list[tuple[int, dict[str, Any] | None]] = [(-1, root)]
    for indent, key, value in _keys(lines):
        while places[-1][0] >= indent:
            places.pop()
        parent = places[-1][1]
        if parent is not None:  # else a continued scalar
            parent[key] = {} if value is None else value
        places.append((indent, parent[key] if parent is not None and value is None else None))
    return root


def at(config: Any, *names: str) -> Mapping[str, Any]:
    """The mapping under nested names, empty if there is none.

    Raises ValueError if there is another value.
    """
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
        if isinstance(config, str) and config.startswith(tuple(OTHER)):
            raise ValueError(f"{name} is {config[:20]!r}: write it as a mapping, one key a line")
    return config if isinstance(config, Mapping) else {}


def _keys(lines: list[str]) -> Iterator[tuple[int, str, str | None]]:
    """Indentation, key and scalar of the lines that have a key; None for a key without a scalar."""
    for line in lines:
        key, colon, value = line.partition(":")
        name = key.strip().strip("'\"")
        if colon and name and not name.startswith("- ") and value[:1] in ("", " "):
            yield len(key) - len(key.lstrip(" ")), name, _scalar(value.strip())


def _scalar(text: str) -> str | None:
    if quoted := re.fullmatch(r"(['\"])(.*?)\1(?:\s+#.*)?", text):
        return quoted[2]
    return re.sub(r"(^|\s)#.*", "", text).strip() or None
