"""Captions of a run that are known not to be memories, whatever detection says of them: what a
method is judged by must not choose its cases.
"""

from __future__ import annotations

from findnemo.metrics.kind import ORDINARY
from findnemo.runs.store import Run

_WORD = "replace(replace(lower(trim(coalesce(type, ''))), '_', ' '), '-', ' ')"
_NONE = ", ".join(f"'{word}'" for word in ORDINARY)
# in SQL, of a row of captions: `metrics.kind.is_memory`
MEMORY = f"({_WORD} <> '' AND {_WORD} NOT IN ({_NONE}))"


def ordinary(run: Run, most: int = -1) -> list[str]:
    """Captions as they come that the table of a run calls no memory; the first `most`.

    Those with a type that says none (`metrics.kind.is_memory`); where others have the type of a
    memory, also those without any. Empty where nobody has told the kinds of the captions.
    """
    told = bool(run.query(f"SELECT 1 FROM captions WHERE {MEMORY} LIMIT 1"))
    wanted = f"NOT {MEMORY}" if told else f"{_WORD} IN ({_NONE})"
    sql = f"SELECT text FROM captions WHERE {wanted} ORDER BY id LIMIT ?"
    return [text for (text,) in run.query(sql, (most,))]
