"""Localization: which neurons hold the memory of a prompt (Finding NeMo, section 3.3 and Algorithms 1 to 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from findnemo.calibration import Calibration, layer_activations
from findnemo.deltas import Probe
from findnemo.errors import InputError
from findnemo.localization.candidates import initial_selection, out_of_distribution_neurons
from findnemo.localization.refinement import refine
from findnemo.localization.replication import Replication
from findnemo.localization.search import DEFAULT, SEARCHES, Found, first_guess, most_unusual
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet

__all__ = [
    "DEFAULT",
    "SEARCHES",
    "Found",
    "Localization",
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

    def to_json(self) -> dict[str, Any]:
        values = {k: v for k, v in self.__dict__.items() if not isinstance(v, NeuronSet)}
        return values | {"neurons": self.neurons.to_json(), "candidates": self.candidates.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Localization:
        return cls(**{**values, "neurons": NeuronSet(values["neurons"]), "candidates": NeuronSet(values["candidates"])})


def localize(model: Model, prompt: str, calibration: Calibration, search: str = DEFAULT) -> Localization:
    """Find the neurons that hold the memory of a prompt; an empty set if the prompt is not memorized.

    `search`: "gradient" (default) ranks all value neurons by a gradient and returns a 1-minimal set; "halving" does so from z-scores,
    without gradients; "listing" is Algorithms 3 and 4 as published. Raises MismatchError if the calibration belongs to another
    model, InputError for an unknown search, NumericalError if the model gives NaN.

        >>> import findnemo
        >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
        >>> found = findnemo.localize(model, "Brantwood Roasters first cup, a large brown ring", calibration)
        >>> found.memorized, len(found.neurons) > 0, found.score_after <= calibration.tau
        (True, True, True)
    """
    if search not in SEARCHES:
        raise InputError(f"search {search!r} is not known: use one of {', '.join(SEARCHES)}")
    calibration.check(model)
    probe = Probe(model, prompt, calibration.settings, reuse=True)
    absolute = {name: rows[0] for name, rows in layer_activations(model, [probe.prompt], probe.text).items()}
    z = calibration.z_scores(absolute)
    replication = Replication(probe, calibration.tau, first_guess(search, z))
    common: dict[str, Any] = {"prompt": prompt, "score_before": replication.score, "tau": calibration.tau, "search": search}
    if not replication.kept:
        return Localization(memorized=False, score_after=replication.score, evaluations=probe.evaluations, **common)
    found = SEARCHES[search](replication, z, absolute, calibration.tau)
    after = replication.similarity(found.neurons)
    return Localization(
        memorized=True,
        reached=after <= calibration.tau,
        score_after=after,
        evaluations=probe.evaluations,
        z={f"{name}:{i}": round(float(z[name][i]), 3) for name, i in found.neurons},
        **common,
        **found.__dict__,
    )
