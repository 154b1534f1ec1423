"""Counts and lists in plain English."""

from __future__ import annotations

from collections.abc import Sequence


def word_list(parts: Sequence[str]) -> str:
    """One or more parts as a list.

    >>> word_list(["one"]), word_list(["one", "two", "three"])
    ('one', 'one, two and three')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def count(amount: int, what: str) -> str:
    """A number with its noun, in the plural where needed.

    >>> count(1, "neuron"), count(2000, "memory")
    ('1 neuron', '2,000 memories')
    """
    if amount != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{amount:,} {what}"
