"""The searches: each takes the replicating seeds of a prompt, its activations and their z-scores, and returns what it found.

The fast one ranks all value neurons, takes the shortest prefix of a ranking that suffices, and leaves out what is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from torch import Tensor

from findnemo.localization.candidates import initial_selection
from findnemo.localization.minimal import Test, minimise, sufficient_prefix
from findnemo.localization.refinement import refine
from findnemo.localization.replication import Replication
from findnemo.neurons import EMPTY, Neuron, NeuronSet

LEVELS = (
    0.3,
    0.75,
)  # masks at which gradients are taken: at 1 the gradient is zero, at 0 redundant neurons hide each other
GRADIENT_SEEDS = 2
FEW, MANY = 4, 32  # how far a ranking is followed before the next one is tried
UNUSUAL = 100.0  # a z-score above this weighs no more
SLACK = 1e-4  # rounding between batches of different size
DEFAULT = "trajectory"

Values = Mapping[str, Tensor]  # layer -> (width,)
Ranking = Callable[[], Sequence[Neuron]]


@dataclass(frozen=True)
class Found:
    """`neurons`: to be switched off; `candidates`: what they were refined from; `theta`, `k`: where Algorithm 3 stopped."""

    neurons: NeuronSet
    candidates: NeuronSet
    theta: float | None = None
    k: int | None = None


def by_gradient(replication: Replication, z: Values, absolute: Values, tau: float) -> Found:
    """All value neurons, those first that are unusual and whose re-activation would bring the memory back most; the most unusual few before.

    A test that fails costs one evaluation, a gradient six, z-scores none: so a short prefix of one ranking is tried before the next is
    computed. Gradients are weighed by the square of the z-score: a neuron that matters for every caption holds no memory of this one
    (docs/benchmark.md has what that changed). The last ranking is of the gradient alone, for a memory in neurons of usual activation.
    """
    return ranked(replication, _by_sensitivity(replication, z), tau, most_unusual(z))


def _by_sensitivity(replication: Replication, z: Values) -> list[Ranking]:
    @cache
    def gradient(level: float) -> Values:
        return replication.sensitivity(replication.kept[:GRADIENT_SEEDS], level)

    low, high = LEVELS
    return [
        lambda: most_unusual(z)[:FEW],
        lambda: descending(weighed(gradient(low), z))[:MANY],
        lambda: descending(weighed(gradient(high), z))[:MANY],
        lambda: descending({name: gradient(low)[name] + gradient(high)[name] for name in z}),
    ]


def _by_unusualness(replication: Replication, z: Values) -> list[Ranking]:
    return [lambda: most_unusual(z)]


def by_listing(replication: Replication, z: Values, absolute: Values, tau: float) -> Found:
    """Algorithms 3 and 4 as published."""
    first = initial_selection(replication, z, absolute, tau)
    tau_ref = max(
        tau, first.similarity
    )  # if tau was out of reach, refinement keeps the level that was reached
    return Found(refine(replication, first.neurons, tau_ref), first.neurons, first.theta, first.k)


ONE_STEP: dict[str, Callable[[Replication, Values, Values, float], Found]] = {
    "gradient": by_gradient,
    "listing": by_listing,
}
SEARCHES = (DEFAULT, *ONE_STEP)
_RANKINGS = {"gradient": _by_sensitivity, "listing": _by_unusualness}  # of alternatives


def first_guess(search: str, z: Values) -> NeuronSet:
    """The set that a search tries first, known before anything of the U-Net is: the most unusual neuron. None for the listing."""
    return EMPTY if search == "listing" else NeuronSet.of(most_unusual(z)[:1])


def most_unusual(z: Values) -> list[Neuron]:
    """All value neurons of a caption, those of the largest |z| first; `z`: layer -> (width,) z-scores (Calibration.z_scores)."""
    return descending({name: values.abs() for name, values in z.items()})


def weighed(gradient: Values, z: Values) -> dict[str, Tensor]:
    """Gradients times squared z-scores, layer -> (width,); a neuron that never varied counts as z = 100.

    >>> import torch
    >>> weighed({"a": torch.tensor([2.0, 2.0, 0.0])}, {"a": torch.tensor([-3.0, 0.5, torch.inf])})["a"].tolist()
    [18.0, 0.5, 0.0]
    """
    return {name: gradient[name] * z[name].abs().clamp(max=UNUSUAL).square() for name in gradient}


def descending(values: Values) -> list[Neuron]:
    """All neurons, those of the largest value first.

    >>> import torch
    >>> descending({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([2.0])})
    [('a', 1), ('b', 0), ('a', 0)]
    """
    scored = [(float(x), name, i) for name, v in values.items() for i, x in enumerate(v)]
    return [(name, i) for _, name, i in sorted(scored, key=lambda one: -one[0])]


def ranked(
    replication: Replication, rankings: Sequence[Ranking], tau: float, worth: Sequence[Neuron]
) -> Found:
    """The shortest sufficient prefix of the first ranking that has one, made 1-minimal. The last ranking holds all neurons.

    Where there is a choice, the neurons that come last in `worth` are left out. Sets are tried on a few witnesses among the seeds; what
    comes out is confirmed on all of them. Where a seed disagrees, it becomes a witness, and the search starts again with what it
    knows. What a witness needs, all need: so the set stays 1-minimal. If not even all neurons together get to tau, the similarity
    they reach takes its place, as in Algorithm 3.
    """
    level = tau
    while True:
        found = _at_level(replication, rankings, level, worth)
        if found is not None:
            return found
        level = replication.similarity(NeuronSet.of(worth)) + SLACK


def alternatives(
    search: str, replication: Replication, z: Values, tau: float
) -> Callable[[NeuronSet], Found | None]:
    """A function of neurons that are ruled out: another 1-minimal set that brings the memory down to tau without them, or None.

    No ranking is followed further than 32 neurons: a larger set is costly to reduce, and not gentle. What the search has measured and ranked is
    used again. The listing ranks no neurons: its alternatives are ranked by unusualness.
    """
    rankings, worth = _RANKINGS[search](replication, z), most_unusual(z)

    def without(ruled_out: NeuronSet) -> Found | None:
        others = [partial(_first, ranking, ruled_out) for ranking in rankings]
        return _at_level(replication, others, tau, [n for n in worth if n not in ruled_out])

    return without


def _first(ranking: Ranking, ruled_out: NeuronSet) -> list[Neuron]:
    return [n for n in ranking() if n not in ruled_out][:MANY]


def _at_level(
    replication: Replication, rankings: Sequence[Ranking], level: float, worth: Sequence[Neuron]
) -> Found | None:
    """The same at one level; None if not even the whole of the last ranking gets there."""
    gone: Test = partial(replication.gone, level=level)
    while (prefix := _first_prefix(rankings, gone)) is not None:
        neurons = minimise(prefix, gone, worth, partial(replication.needed, level=level))
        if replication.confirmed(neurons, level):
            return Found(neurons, prefix)
    return None


def _first_prefix(rankings: Iterable[Ranking], gone: Test) -> NeuronSet | None:
    prefixes = (sufficient_prefix(ranking(), gone) for ranking in rankings)
    return next((prefix for prefix in prefixes if prefix is not None), None)
