"""Localization: which neurons hold the memory of a prompt (Finding NeMo, section 3.3 and Algorithms 1 to 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from findnemo.calibration import Calibration, activations
from findnemo.deltas import Probe, Replication
from findnemo.errors import InputError
from findnemo.localization.candidates import initial_selection, out_of_distribution_neurons
from findnemo.localization.refinement import refine
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet

__all__ = ["SEARCHES", "Localization", "initial_selection", "localize", "out_of_distribution_neurons", "refine"]


@dataclass(frozen=True)
class Localization:
    """Where the memory of a prompt sits.

    `memorized`: whether the prompt's score reached tau. `neurons`: the set to deactivate, empty if not memorized.
    `candidates`: the set that refinement began with. `score_before`: memorization score of the untouched model (largest pairwise
    SSIM over the seeds). `score_after`: with `neurons` off, the largest similarity of a replicating seed's noise difference to
    its own before (the quantity that Algorithms 3 and 4 hold at or below tau). `reached`: whether it got there.
    `theta`, `k`: where Algorithm 3 stopped. `z`: z-score of every neuron found. `evaluations`: U-Net sample evaluations spent.
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
    search: str = "listing"
    z: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        values = {k: v for k, v in self.__dict__.items() if not isinstance(v, NeuronSet)}
        return values | {"neurons": self.neurons.to_json(), "candidates": self.candidates.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Localization:
        return cls(**{**values, "neurons": NeuronSet(values["neurons"]), "candidates": NeuronSet(values["candidates"])})


def _listing(replication: Replication, calibration: Calibration) -> dict[str, Any]:
    """Algorithms 3 and 4 as published."""
    probe, tau = replication.probe, calibration.tau
    absolute = activations(probe.model, probe.prompt)
    z = calibration.z_scores(absolute)
    first = initial_selection(replication, z, absolute, tau)
    tau_ref = max(tau, first.similarity)  # if tau was out of reach, refinement keeps the level that was reached
    neurons = refine(replication, first.neurons, tau_ref)
    return {
        "neurons": neurons,
        "candidates": first.neurons,
        "score_after": replication.similarity(neurons),
        "theta": first.theta,
        "k": first.k,
        "z": {f"{name}:{i}": round(float(z[name][i]), 3) for name, i in neurons},
    }


SEARCHES: dict[str, Callable[[Replication, Calibration], dict[str, Any]]] = {"listing": _listing}


def localize(model: Model, prompt: str, calibration: Calibration, search: str = "listing") -> Localization:
    """Find the neurons that hold the memory of a prompt; an empty set if the prompt is not memorized.

    `search`: "listing" is Algorithms 3 and 4 as published. Raises MismatchError if the calibration belongs to another model,
    InputError for an unknown search, NumericalError if the model gives NaN.

        >>> import findnemo
        >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
        >>> found = findnemo.localize(model, "Brantwood Roasters first cup, a large brown ring", calibration)
        >>> found.memorized, len(found.neurons) > 0, found.score_after <= calibration.tau
        (True, True, True)
    """
    if search not in SEARCHES:
        raise InputError(f"search {search!r} is not known: use one of {', '.join(SEARCHES)}")
    calibration.check(model)
    replication = Replication(probe := Probe(model, prompt, calibration.settings), calibration.tau)
    common: dict[str, Any] = {"prompt": prompt, "score_before": replication.score, "tau": calibration.tau, "search": search}
    if not replication.kept:
        return Localization(memorized=False, score_after=replication.score, evaluations=probe.evaluations, **common)
    found = SEARCHES[search](replication, calibration)
    reached = found["score_after"] <= calibration.tau
    return Localization(memorized=True, reached=reached, evaluations=probe.evaluations, **common, **found)
