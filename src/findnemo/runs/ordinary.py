"""Captions of a run that its table calls no memories, whatever detection says about them.

A method must not choose the cases that it is judged by.
"""

from __future__ import annotations

from findnemo.metrics.kind import ORDINARY
from findnemo.runs.store import Run

_WORD = "replace(replace(lower(trim(coalesce(type, ''))), '_', ' '), '-', ' ')"
_NONE = ", ".join(f"'{word}'" for word in ORDINARY)
# `metrics.kind.is_memory` in SQL, for a row of captions
MEMORY = f"({_WORD} <> '' AND {_WORD} NOT IN ({_NONE}))"


def ordinary(run: Run, most: int = -1) -> list[str]:
    """The first `most` captions that the table of a run calls no memory, in table order.

    They have a type that names no memory (`metrics.kind.is_memory`). If other captions have the
    type of a memory, captions without a type count too. Empty if the table gives no types.
    """
    told = bool(run.query(f"SELECT 1 FROM captions WHERE {MEMORY} LIMIT 1"))
    wanted = f"NOT {MEMORY}" if told else f"{_WORD} IN ({_NONE})"
    sql = f"SELECT text FROM captions WHERE {wanted} ORDER BY id LIMIT ?"
    return [text for (text,) in run.query(sql, (most,))]
