"""Compare a run of a shipped model with what is known about that model.

The comparison is by caption, so that a missed memory and a false alarm do not cancel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from findnemo import demo
from findnemo.runs.standing import treated_as_memory
from findnemo.runs.store import Caption, Run

NAMED = 3  # captions of a kind to list
KINDS = {"demo": "planted memories", "demo-natural": "captions that the model copies"}


@dataclass(frozen=True)
class Truth:
    """The detection errors of a run on a shipped model.

    `of`: number of memories among the captions looked at. `missed`: those not found. `alarms`:
    ordinary captions taken for memories. `kind`: the name of these memories.
    """

    kind: str
    of: int
    missed: tuple[str, ...]
    alarms: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"of": self.of, "missed": list(self.missed), "alarms": list(self.alarms)}

    @property
    def sentences(self) -> list[str]:
        """A sentence, and a line of captions for each kind of error.

        >>> Truth("planted memories", 24, ("a cat",), ()).sentences
        ['Found 23 of 24 planted memories, no false alarm.', 'missed: a cat']
        """
        alarms = f"{len(self.alarms) or 'no'} false alarm{'s' * (len(self.alarms) > 1)}"
        lines = [f"Found {self.of - len(self.missed)} of {self.of} {self.kind}, {alarms}."]
        for what, wrong in (("missed", self.missed), ("false alarm", self.alarms)):
            lines += [f"{what}: {text}" for text in wrong[:NAMED]]
            lines += [f"{what}: {len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
        return lines


def truth_of(run: Run, captions: Iterable[Caption]) -> Truth | None:
    """Compare a run with what is known about the captions of its shipped model
    (`standing.treated_as_memory`).

    Captions that do not come with the model do not count. None for other models, for a model opened
    with a LoRA or an embedding, and if no caption came with the model.

        with Run.open("findnemo-demo") as run:
            print(truth_of(run, list(run.captions())).sentences)
    """
    source = run.meta("source")
    if source not in KINDS or run.meta("source_options"):
        return None
    memories, ordinary = _shipped(source)
    looked_at = [c for c in captions if c.detected is not None]
    known = [c for c in looked_at if c.text in memories]
    others = [c for c in looked_at if c.text in ordinary]
    if not known and not others:
        return None
    return Truth(
        KINDS[source],
        len(known),
        tuple(c.text for c in known if not treated_as_memory(c)),
        tuple(c.text for c in others if treated_as_memory(c)),
    )


@cache
def _shipped(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """The captions that a shipped model has memorized, and its other captions."""
    memories = frozenset(prompt.text for prompt in demo.memorized(source))
    return memories, frozenset((*demo.unrelated(), *demo.holdout())) - memories
