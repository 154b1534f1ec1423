"""Choose captions that a study may take as not memorized.

Their kinds are known, they come unselected, and tau was not computed from them.
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
    """Captions known not to be memorized, first those of the run, then `given` ones; and how many
    given ones are left out.

    Left out are captions that the run's table calls memories, `holdout`, and hold-out captions of
    the calibration if `given` begins with them (`held_out`): tau was computed from their scores.
    """
    memories = {c.text for c in run.captions() if is_memory(c.type)}
    barred = memories | set(holdout) | set(held_out(given, calibration))
    chosen = [text for text in (*ordinary(run), *given) if text not in barred]
    return list(dict.fromkeys(chosen)), sum(text in barred for text in given)


def held_out(captions: Sequence[str], calibration: Calibration) -> list[str]:
    """The first of `captions`, if they are the hold-out captions of a calibration in its order;
    else none.

    They are compared by their digest, so captions in another order are not recognized.
    """
    digest = ""
    for n, caption in enumerate(captions, 1):
        digest = chained(digest, caption)
        if calibration.prompts == digest:
            return list(captions[:n])
    return []


def under_tau(captions: Iterable[Any]) -> list[str]:
    """Captions under tau without the type of a memory, for runs in which no kinds are known."""
    return [
        c.text
        for c in captions
        if c.detected is not None and not c.detected.memorized and not is_memory(c.type)
    ]
