"""Values as canonical JSON, and their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def canonical(value: Any) -> str:
    """JSON of pure ASCII with sorted keys and no spaces: equal values give equal text.

    Raises ValueError for NaN and infinity.

    >>> canonical({"b": [1, 0.5], "a": None})
    '{"a":null,"b":[1,0.5]}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest_of(pack: Mapping[str, Any]) -> str:
    """SHA-256, 64 hexadecimal digits, over the canonical JSON of a pack without its digest.

    >>> digest_of({"a": 1, "digest": "anything"}) == digest_of({"a": 1})
    True
    """
    rest = {name: value for name, value in pack.items() if name != "digest"}
    return of_text(canonical(rest))


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def of_rows(rows: Iterable[Any]) -> str:
    """SHA-256 over rows of any values, each as a line of JSON."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, default=repr).encode() + b"\n")
    return total.hexdigest()
