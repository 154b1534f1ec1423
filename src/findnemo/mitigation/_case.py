"""What all mitigations have in common: a model and a case go in, a context comes out in which
the pipeline is used as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet


@dataclass(frozen=True)
class Case:
    """What a mitigation may know.

    `neurons`: what localization found. `seed`: base seed of all that is drawn.

    `reference`: captions that are not memorized, for methods that compare with such.
    """

    prompt: str
    neurons: NeuronSet = EMPTY
    seed: int = 0
    reference: tuple[str, ...] = ()


Mitigation = Callable[[Model, Case], AbstractContextManager[None]]
