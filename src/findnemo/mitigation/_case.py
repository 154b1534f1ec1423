"""The common interface of mitigations: a model and a case give a context in which the pipeline is
used as usual.
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

    `neurons`: those that localization found. `seed`: base seed of all random draws. `reference`:
    captions that are not memorized, for methods that need them.
    """

    prompt: str
    neurons: NeuronSet = EMPTY
    seed: int = 0
    reference: tuple[str, ...] = ()


Mitigation = Callable[[Model, Case], AbstractContextManager[None]]


def at_least(least: float, **given: float) -> None:
    """Raises InputError for hyperparameters under `least`, or that are no finite number.

    With such values a method would leave images unchanged, and look weak.

    >>> at_least(1, iterations=0)
    Traceback (most recent call last):
    ...
    findnemo.errors.InputError: iterations is 0: give a number from 1 on
    """
    for name, value in given.items():
        if not (math.isfinite(value) and value >= least):
            raise InputError(f"{name} is {value:.40g}: give a number from {least:g} on")
