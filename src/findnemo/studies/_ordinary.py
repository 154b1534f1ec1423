"""Which captions a study may take as not memorized: known kinds, as they come, and none
that tau was computed from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from findnemo.calibration import Calibration, chained
from findnemo.metrics.kind import is_memory
from findnemo.runs.ordinary import ordinary
from findnemo.runs.store import Run


def not_memorized(
    run: Run, given: Sequence[str], calibration: Calibration, holdout: Collection[str] = ()
) -> tuple[list[str], int]:
    """Captions that are known not to be memorized, those of the run first, then `given` ones; and
    how many given ones are left out.

    Left out are those that the run's table calls memories, `holdout`, and the captions that the
    calibration was made from where `given` begins with them (`held_out`): their scores made tau.
    """
    memories = {c.text for c in run.captions() if is_memory(c.type)}
    barred = memories | set(holdout) | set(held_out(given, calibration))
    chosen = [text for text in (*ordinary(run), *given) if text not in barred]
    return list(dict.fromkeys(chosen)), sum(text in barred for text in given)


def held_out(captions: Sequence[str], calibration: Calibration) -> list[str]:
    """The first of `captions` that are the hold-out captions of a calibration, in its
    order; empty if none are.

    By their identity: the same captions in another order are not told.
    """
    digest = ""
    for n, caption in enumerate(captions, 1):
        digest = chained(digest, caption)
        if calibration.prompts == digest:
            return list(captions[:n])
    return []


def under_tau(captions: Iterable[Any]) -> list[str]:
    """Captions under tau that nobody calls memories: what is left where no kinds are known."""
    return [
        c.text
        for c in captions
        if c.detected is not None and not c.detected.memorized and not is_memory(c.type)
    ]
