"""Localization: which neurons hold the memory of a prompt (Finding NeMo, section 3.3 and Algorithms 1 to 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from findnemo.calibration import Calibration, layer_activations
from findnemo.deltas import Probe
from findnemo.errors import InputError
from findnemo.localization.candidates import initial_selection, out_of_distribution_neurons
from findnemo.localization.gentle import EFFORT, Bystanders, Choice, gentlest
from findnemo.localization.refinement import refine
from findnemo.localization.replication import Replication
from findnemo.localization.search import DEFAULT, SEARCHES, Found, alternatives, first_guess, most_unusual
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet

__all__ = [
    "DEFAULT",
    "SEARCHES",
    "Bystanders",
    "Choice",
    "Found",
    "Localization",
    "gentlest",
    "initial_selection",
    "localize",
    "most_unusual",
    "out_of_distribution_neurons",
    "refine",
]


@dataclass(frozen=True)
class Localization:
    """Where the memory of a prompt sits.

    `memorized`: whether the prompt's score reached tau. `neurons`: the set to deactivate, empty if not memorized.
    `candidates`: the set that refinement began with. `score_before`: memorization score of the untouched model (largest pairwise
    SSIM over the seeds). `score_after`: with `neurons` off, the largest similarity of a replicating seed's noise difference to
    its own before (the quantity that Algorithms 3 and 4 hold at or below tau). `reached`: whether it got there.
    `theta`, `k`: where Algorithm 3 stopped. `z`: z-score of every neuron found. `evaluations`: U-Net sample evaluations spent.
    Where a gentle set was asked for: `impact` of `neurons` on unrelated captions, `max_impact` that was asked for (the impact is above it
    where no set that removes the memory was found with less), and `tried`, the number of sets compared.
    """

    prompt: str
    memorized: bool
    score_before: float
    score_after: float
    tau: float
    evaluations: int
    neurons: NeuronSet = EMPTY
    candidates: NeuronSet = EMPTY
    reached: bool = True
    theta: float | None = None
    k: int | None = None
    search: str = DEFAULT
    z: dict[str, float] = field(default_factory=dict)
    impact: float | None = None
    max_impact: float | None = None
    tried: int = 0

    def to_json(self) -> dict[str, Any]:
        values = {k: v for k, v in self.__dict__.items() if not isinstance(v, NeuronSet)}
        return values | {"neurons": self.neurons.to_json(), "candidates": self.candidates.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Localization:
        return cls(**{**values, "neurons": NeuronSet(values["neurons"]), "candidates": NeuronSet(values["candidates"])})


def localize(
    model: Model,
    prompt: str,
    calibration: Calibration,
    search: str = DEFAULT,
    max_impact: float | None = None,
    unrelated: Bystanders | Sequence[str] = (),
) -> Localization:
    """Find the neurons that hold the memory of a prompt; an empty set if the prompt is not memorized.

    `search`: "gradient" (default) ranks all value neurons by a gradient and returns a 1-minimal set; "halving" does so from z-scores,
    without gradients; "listing" is Algorithms 3 and 4 as published. `max_impact`: among sets that remove the memory prefer one that
    changes the captions of `unrelated` (not memorized) by no more than this, see `Bystanders`; if none is found, the gentlest is returned,
    and its `impact` tells. Raises MismatchError if the calibration belongs to another model, InputError for an unknown search, for an
    impact that is none and for `max_impact` without captions, NumericalError if the model gives NaN.

        >>> import findnemo
        >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
        >>> found = findnemo.localize(model, "Brantwood Roasters first cup, a large brown ring", calibration)
        >>> found.memorized, len(found.neurons) > 0, found.score_after <= calibration.tau
        (True, True, True)
    """
    if search not in SEARCHES:
        raise InputError(f"search {search!r} is not known: use one of {', '.join(SEARCHES)}")
    check_impact(max_impact)
    calibration.check(model)
    probe = Probe(model, prompt, calibration.settings, reuse=True)
    absolute = {name: rows[0] for name, rows in layer_activations(model, [probe.prompt], probe.text).items()}
    z = calibration.z_scores(absolute)
    replication = Replication(probe, calibration.tau, first_guess(search, z))
    common: dict[str, Any] = {"prompt": prompt, "score_before": replication.score, "tau": calibration.tau, "search": search}
    if not replication.kept:
        return Localization(memorized=False, score_after=replication.score, evaluations=probe.evaluations, **common)
    found, spent = SEARCHES[search](replication, z, absolute, calibration.tau), 0
    if max_impact is not None:
        others = unrelated if isinstance(unrelated, Bystanders) else Bystanders(model, unrelated, calibration.settings)
        before = others.evaluations
        choice = _gentle(replication, found, search, z, calibration.tau, max_impact, others)
        found, spent = choice.found, others.evaluations - before
        common |= {"impact": round(choice.impact, 6), "max_impact": max_impact, "tried": choice.tried}
    after = replication.similarity(found.neurons)
    return Localization(
        memorized=True,
        reached=after <= calibration.tau,
        score_after=after,
        evaluations=probe.evaluations + spent,
        z={f"{name}:{i}": round(float(z[name][i]), 3) for name, i in found.neurons},
        **common,
        **found.__dict__,
    )


def check_impact(max_impact: float | None) -> None:
    """Raises InputError for what is no impact: a number from 0 (nothing changes) to 2."""
    if max_impact is not None and not (math.isfinite(max_impact) and 0 <= max_impact <= 2):
        raise InputError(f"an impact of {max_impact} is no mean of 1 - SSIM: give a number from 0 to 2, such as 0.02")


def _gentle(
    replication: Replication, found: Found, search: str, z: Any, tau: float, max_impact: float, others: Bystanders
) -> Choice:
    """The gentlest set that brings the memory to tau; where the search could not, its set stays, for nothing removes the memory."""
    prompt, began = replication.probe.prompt, replication.probe.evaluations
    another = alternatives(search, replication, z, tau)
    tries = {"tries": 1} if replication.similarity(found.neurons) > tau else {}
    return gentlest(
        found,
        max_impact,
        lambda neurons: others.impacts([neurons], prompt)[0],
        lambda neurons: others.heaviest(neurons, prompt),
        lambda without: another(without) if replication.probe.evaluations - began < EFFORT else None,
        **tries,
    )
