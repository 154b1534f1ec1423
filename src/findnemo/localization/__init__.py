"""Localization: which neurons hold the memory of a prompt (Finding NeMo, section 3.3 and Algorithms 1 to 4)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from findnemo.calibration import Calibration, layer_activations
from findnemo.deltas import Probe
from findnemo.errors import InputError
from findnemo.localization.candidates import initial_selection, out_of_distribution_neurons
from findnemo.localization.refinement import refine
from findnemo.localization.replication import Replication
from findnemo.localization.search import DEFAULT, SEARCHES, Found, first_guess, most_unusual
from findnemo.localization.stability import consensus_of, frequency, iou, pairwise_iou
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet

__all__ = [
    "DEFAULT",
    "SEARCHES",
    "Found",
    "Localization",
    "consensus_of",
    "frequency",
    "initial_selection",
    "iou",
    "localize",
    "most_unusual",
    "out_of_distribution_neurons",
    "pairwise_iou",
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
    `p`: p-value of `score_before` (`Calibration.p_value`). `frequency`: of a consensus, "layer:index" of every neuron found at all ->
    share of the searches that found it.
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
    p: float | None = None
    frequency: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        values = {k: v for k, v in self.__dict__.items() if not isinstance(v, NeuronSet)}
        return values | {"neurons": self.neurons.to_json(), "candidates": self.candidates.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Localization:
        return cls(**{**values, "neurons": NeuronSet(values["neurons"]), "candidates": NeuronSet(values["candidates"])})


def localize(model: Model, prompt: str, calibration: Calibration, search: str = DEFAULT, consensus: int = 1) -> Localization:
    """Find the neurons that hold the memory of a prompt; an empty set if the prompt is not memorized.

    `search`: "gradient" (default) ranks all value neurons by a gradient and returns a 1-minimal set; "halving" does so from z-scores,
    without gradients; "listing" is Algorithms 3 and 4 as published. `consensus`: so many searches, each on seeds of its own (base seeds seed,
    seed + 1, ...); the neurons that more than half of them found, and as many more, in order of frequency, as it takes for the memory to be
    gone on the seeds of all of them. Raises MismatchError if the calibration belongs to another model, InputError for an unknown search or a
    consensus of less than one, NumericalError if the model gives NaN.

        >>> import findnemo
        >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
        >>> found = findnemo.localize(model, "Brantwood Roasters first cup, a large brown ring", calibration)
        >>> found.memorized, len(found.neurons) > 0, found.score_after <= calibration.tau
        (True, True, True)
    """
    if search not in SEARCHES:
        raise InputError(f"search {search!r} is not known: use one of {', '.join(SEARCHES)}")
    if consensus < 1:
        raise InputError(f"a consensus of {consensus} searches: give 1 or more")
    calibration.check(model)
    first = _searched(model, prompt, calibration, search)
    before, tau = first.replication.score, calibration.tau
    common: dict[str, Any] = {
        "prompt": prompt,
        "score_before": before,
        "tau": tau,
        "search": search,
        "p": calibration.p_value(before),
    }
    if first.found is None:
        return Localization(memorized=False, score_after=before, evaluations=first.evaluations, **common)
    more = [_searched(model, prompt, calibration, search, repeat) for repeat in range(1, consensus)]
    searches = [first, *(s for s in more if s.found is not None)]  # on other seeds the prompt may stay under tau
    found, shares = _agreed(searches) if consensus > 1 else (first.found, {})
    after = max(s.replication.similarity(found.neurons) for s in searches)
    return Localization(
        memorized=True,
        reached=after <= tau,
        score_after=after,
        evaluations=first.evaluations + sum(s.evaluations for s in more),
        z={f"{name}:{i}": round(float(first.z[name][i]), 3) for name, i in found.neurons},
        frequency=shares,
        **common,
        **found.__dict__,
    )


@dataclass(frozen=True)
class _Search:
    """One search on seeds of its own. `found`: None if no seed replicated."""

    replication: Replication
    z: dict[str, Tensor]
    found: Found | None
    tau: float

    @property
    def evaluations(self) -> int:
        return self.replication.probe.evaluations

    def gone(self, neurons: NeuronSet) -> bool:
        """Whether the memory is as gone with `neurons` off as this search got it: on all its seeds under tau, or what it reached."""
        assert self.found is not None
        return self.replication.confirmed(neurons, max(self.tau, self.replication.similarity(self.found.neurons)))


def _searched(model: Model, prompt: str, calibration: Calibration, search: str, repeat: int = 0) -> _Search:
    """A search on the seeds that belong to a base seed, counted from the calibration's."""
    settings = replace(calibration.settings, seed=calibration.settings.seed + repeat)
    probe = Probe(model, prompt, settings, reuse=True)
    absolute = {name: rows[0] for name, rows in layer_activations(model, [prompt], probe.text).items()}
    z = calibration.z_scores(absolute)
    replication = Replication(probe, calibration.tau, first_guess(search, z))
    found = SEARCHES[search](replication, z, absolute, calibration.tau) if replication.kept else None
    return _Search(replication, z, found, calibration.tau)


def _agreed(searches: list[_Search]) -> tuple[Found, dict[str, float]]:
    """The consensus of searches, refined from all that they found; and how often each neuron was."""
    sets = [s.found.neurons for s in searches if s.found is not None]
    shares = frequency(sets)
    neurons = consensus_of(sets, lambda neurons: all(s.gone(neurons) for s in searches))
    return Found(neurons, NeuronSet.of(shares)), {f"{name}:{i}": round(share, 3) for (name, i), share in shares.items()}
