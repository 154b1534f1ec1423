"""What all mitigations have in common: a model and a case go in, a context comes out in which
the pipeline is used as usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from findnemo.errors import InputError
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


def at_least(least: float, **given: float) -> None:
    """Refuse hyperparameters under `least`, and those that are no finite number: methods would
    leave images as they are, and look weak.

    Raises InputError.

    >>> at_least(1, iterations=0)
    Traceback (most recent call last):
    ...
    findnemo.errors.InputError: iterations is 0: give a number from 1 on
    """
    for name, value in given.items():
        if not (math.isfinite(value) and value >= least):
            raise InputError(f"{name} is {value:.40g}: give a number from {least:g} on")
