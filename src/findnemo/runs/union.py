"""Check the neurons of all captions off together, as they are exported.

Each caption's set was found alone. Together, one set may disturb what another removes. So after
verification the union of all sets is looked at as a whole, first at a glance. If a copy comes back,
further neurons join the union (`localization.localize_further`), and the larger union is looked at.
This gives a chain of unions, each named by the digest of its neurons. The run keeps the union with
the fewest memories back; of several, the smallest. That one is looked at in full.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.standing import (
    all_neurons,
    cleaned_folder,
    falls,
    joined_neurons,
    standing,
    treated_as_memory,
    verification_of,
)
from findnemo.runs.store import Caption, Run
from findnemo.seeds import AGAIN, FRESH

ROUNDS = 3  # rounds of further searches, at most
# SQL: results of any union
OF_UNIONS = "(stage LIKE 'glance:%' OR stage LIKE 'union:%' OR stage LIKE 'further:%')"
BACK = ("back", "copies")  # standings of memories that a union does not remove


@dataclass(frozen=True)
class Union:
    """A set of `neurons`, with the `digests` of the sets that led to it and its own, the last."""

    neurons: NeuronSet
    digests: tuple[str, ...] = ()

    def __or__(self, more: NeuronSet) -> Union:
        neurons = self.neurons | more
        return Union(neurons, (*self.digests, digest_of(neurons)))

    @property
    def glance_stage(self) -> str:
        """The stage that glances at captions with the set off."""
        return f"glance:{self.digests[-1]}"

    @property
    def look_stage(self) -> str:
        """The stage that looks at captions with the set off."""
        return f"union:{self.digests[-1]}"

    @property
    def further_stage(self) -> str:
        """The stage that searches further with the set off."""
        return f"further:{self.digests[-1]}"

    def of(self, caption: Caption) -> Caption:
        """A caption with its standing when this set is off."""
        return replace(caption, unions=self.digests)


def digest_of(neurons: NeuronSet) -> str:
    """Eight hexadecimal digits that identify a set of neurons.

    >>> digest_of(NeuronSet({"a": [1, 2]})) == digest_of(NeuronSet({"a": [2, 1]}))
    True
    """
    told = json.dumps(sorted(neurons)).encode()
    return hashlib.sha256(told).hexdigest()[:8]


GoOn = Callable[[Union, Sequence[Caption]], bool]
Look = Callable[[Union, Sequence[Caption], bool], bool]


def settle(run: Run, look: Look, go_on: GoOn) -> bool:
    """Look at the union of all neurons, search further for what came back, and remember the best
    union.

    `look(union, captions, glance)` answers `union.look_stage` for captions without an answer; with
    `glance` it answers `union.glance_stage`, or gives the whole answer at once. `go_on(union, captions)`
    answers `union.further_stage`. Both return whether they finished, as does this function. Answers are
    not computed again. Until it finishes, or if there are no neurons, the run has no union, and its
    captions are judged with their own neurons off.
    """
    union = Union(EMPTY) | all_neurons(Union(EMPTY).of(c) for c in run.captions(stage="localize"))
    numbers = [c.id for c in run.captions(stage="verify") if treated_as_memory(c)]
    chain: dict[Union, list[Caption]] = {}
    whole: set[Union] = set()  # looked at in full

    def looked(union: Union, glance: bool) -> bool:
        """Look, and note the captions as they then stand; return whether that was finished."""
        if not look(union, [union.of(c) for c in run.captions(numbers)], glance):
            return False
        chain[union] = [union.of(c) for c in run.captions(numbers)]
        if not glance:
            whole.add(union)
        return True

    def best() -> Union:
        return min(chain, key=lambda one: sum(standing(c) in BACK for c in chain[one]))

    while union.neurons and numbers:
        if not looked(union, glance=True):
            return False
        if not _came_back(chain[union]) and not looked(union, glance=False):
            return False
        back = _came_back(chain[union])
        if not back or len(chain) > ROUNDS:
            break
        if not go_on(union, back):
            return False
        more = _neurons_found(run, union, back)
        if more <= union.neurons:
            break
        union |= more
    while chain and best() not in whole:
        if not looked(best(), glance=False):
            return False
    _keep(run, best() if chain else None, list(chain))
    return True


def _came_back(captions: Sequence[Caption]) -> list[Caption]:
    """The captions to search further: their own neurons removed what all neurons together do not."""
    return [c for c in captions if falls(c) and c.together is not None and c.together.back]


def _neurons_found(run: Run, union: Union, captions: Sequence[Caption]) -> NeuronSet:
    """The neurons that further searches found with a union off."""
    found = (c.typed_result(union.further_stage) for c in run.captions(c.id for c in captions))
    return NeuronSet.of(n for one in found if one is not None and one.reached for n in one.neurons)


def _keep(run: Run, best: Union | None, chain: Sequence[Union]) -> None:
    """Remember the exported union, and remove results of unions outside its chain: they belong to
    other captions or other searches.
    """
    stages = [
        s for union in chain for s in (union.glance_stage, union.look_stage, union.further_stage)
    ]
    marks = ", ".join("?" * len(stages))
    stale = f"{OF_UNIONS} AND stage NOT IN ({marks})"
    if run.query(f"SELECT 1 FROM results WHERE {stale} LIMIT 1", stages):
        with run.transaction():
            run.query(f"DELETE FROM results WHERE {stale}", stages)
    folders = {union.digests[-1] for union in chain}
    for folder in (run.path / cleaned_folder("")).glob("*"):
        if folder.name not in folders:
            shutil.rmtree(folder, ignore_errors=True)
    kept = None if best is None else {"digests": list(best.digests)}
    if run.meta("union") != kept:
        run.set_meta("union", kept)


def forget(run: Run) -> None:
    """Forget the union of a run, before results change that it depends on.

    Results of the union stay, and count again if the next union is the same.
    """
    if run.meta("union") is not None:
        run.set_meta("union", None)


def first_sample(caption: Caption, images: int) -> int:
    """Number of the first of the `images` samples on which a caption is judged with a union off.

    The samples of verification are fresh. A further search uses some of them as witnesses, so they
    prove nothing any more: after every such search other samples are used.
    """
    times = sum(found.reached and bool(found.neurons) for found in caption.further)
    return FRESH if not times else AGAIN + (times - 1) * images


def grouped(captions: Iterable[Caption], size: int, block: int) -> list[tuple[Caption, ...]]:
    """Groups of captions that share passes: at most `size` captions, all within one block of
    `block` ids.
    """
    groups = []
    for _, found in groupby(captions, key=lambda c: (c.id - 1) // block):
        those = list(found)
        groups += [tuple(those[k : k + size]) for k in range(0, len(those), size)]
    return groups


def sentence_on_union(captions: Sequence[Caption]) -> str:
    """A sentence on how all neurons of a run were checked together.

    Empty if none are off, or if none of their captions was verified.
    """
    off = all_neurons(captions)
    seen = [c for c in captions if treated_as_memory(c) and verification_of(c) is not None]
    if not off or not seen:
        return ""
    neurons, together = (
        (f"all {len(off)} neurons", " together") if len(off) > 1 else ("the one neuron", "")
    )
    whole = [c for c in seen if c.together is not None]
    if not seen[0].unions:
        return (
            f"Each caption was checked with its own neurons off. It was not checked with {neurons}"
            f" off{together}, as in the exported model (findnemo verify does that)."
        )
    some = f"{len(whole)} of {len(seen)} memories" if len(whole) < len(seen) else "Memories"
    again = [c for c in seen if len(joined_neurons(c))]
    more = sum(len(joined_neurons(c)) for c in again)
    text = f"{some} were checked with {neurons} off{together}, as in the exported model."
    if again:
        times = "One memory" if len(again) == 1 else f"{len(again)} memories"
        text += f" {times} had come back: {more} more {'neuron is' if more == 1 else 'neurons are'}"
        text += " off for that, and new seeds judged the result."
    return text
