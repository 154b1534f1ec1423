"""The searches: each takes the replicating seeds of a prompt, its activations and their z-scores,
and returns what it found.

The fast one ranks all value neurons, takes the shortest prefix of a ranking that suffices, and
leaves out what is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from findnemo.calibration import Calibration, activations
from findnemo.errors import InputError
from findnemo.localization.listing import initial_selection, refine
from findnemo.localization.minimal import Test, minimize, sufficient_prefix
from findnemo.localization.replication import Replication
from findnemo.models import Model
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.passes import Probe, spending
from findnemo.runtime.plugins import Methods

# masks at which gradients are taken: at 1 the gradient is zero, at 0 redundant neurons hide each
# other
LEVELS = (0.3, 0.75)
GRADIENT_SEEDS = 2
# how far a ranking is followed before the next one is tried
FEW = 4
GUESS = 8  # by a first guess
MANY = 32
UNUSUAL = 100.0  # a z-score above this weighs no more
SLACK = 1e-4  # rounding between batches of different size
ALTERNATIVES = 3  # sets that are compared with the first one
EFFORT = 400  # U-Net evaluations spent on alternatives, after which no further one is begun

Values = Mapping[str, Tensor]  # layer -> (width,)
Ranking = Callable[[], Sequence[Neuron]]


@dataclass(frozen=True)
class Evidence:
    """What is known of a prompt before a search: the seeds that replicate, and how
    unusual its value neurons are.

    `absolute`: activations, layer -> (width,); `z`: their z-scores.
    """

    replication: Replication
    absolute: dict[str, Tensor]
    z: dict[str, Tensor]


def evidence(model: Model, prompt: str, calibration: Calibration, guess: bool = False) -> Evidence:
    """Noise differences and activations of a prompt.

    `guess`: try the most unusual neuron in the same pass.

    seen = evidence(model, "a caption", calibration)
    seen.replication.score, seen.replication.kept
    """
    probe = Probe(model, prompt, calibration.settings, reuse=True)
    absolute = activations(model, prompt, probe.text)
    z = calibration.z_scores(absolute)
    first = NeuronSet.of(most_unusual(z)[:1]) if guess else EMPTY
    return Evidence(Replication(probe, calibration.tau, first), absolute, z)


@dataclass(frozen=True)
class Found:
    """`neurons`: to be switched off; `candidates`: what they were refined from; `theta`, `k`:
    where Algorithm 3 stopped.

    `gone`: whether they bring every replicating seed to tau.
    """

    neurons: NeuronSet
    candidates: NeuronSet
    theta: float | None = None
    k: int | None = None
    gone: bool = True


def by_gradient(replication: Replication, z: Values, absolute: Values) -> Found:
    """All value neurons, those first that are unusual and whose re-activation would bring the
    memory back most; the most unusual few before.

    A test that fails costs one evaluation, a gradient six, z-scores none: so a short prefix of one
    ranking is tried before the next is computed. Gradients are weighed by the square of the
    z-score: a neuron that matters for every caption holds no memory of this one (docs/benchmark.md
    has what that changed). The last ranking is of the gradient alone, for a memory in neurons of
    usual activation.
    """
    return ranked(replication, _by_sensitivity(replication, z), most_unusual(z))


def _by_sensitivity(replication: Replication, z: Values) -> list[Ranking]:
    gradient = partial(replication.sensitivity, replication.kept[:GRADIENT_SEEDS])
    low, high = LEVELS
    return [
        lambda: most_unusual(z)[:FEW],
        lambda: descending(weighed(gradient(low), z))[:MANY],
        lambda: descending(weighed(gradient(high), z))[:MANY],
        lambda: descending({name: gradient(low)[name] + gradient(high)[name] for name in z}),
    ]


def _by_unusualness(replication: Replication, z: Values) -> list[Ranking]:
    return [lambda: most_unusual(z)]


def by_listing(replication: Replication, z: Values, absolute: Values) -> Found:
    """Algorithms 3 and 4 as published."""
    first = initial_selection(replication, z, absolute)
    # if tau was out of reach, refinement keeps the level that was reached
    tau_ref = max(replication.tau, first.similarity)
    neurons = refine(replication, first.neurons, tau_ref)
    gone = replication.similarity(neurons) <= replication.tau
    return Found(neurons, first.neurons, first.theta, first.k, gone)


@dataclass(frozen=True)
class Search:
    """A search that looks at one noisy step.

    `find`: what it finds with the replicating seeds, z-scores and activations of a prompt; a
    `NeuronSet` will do. `rankings`: orders in which alternatives to its set are sought.
    `guess`: whether the most unusual neuron is tried in the first pass.
    """

    find: Callable[[Replication, Values, Values], Found | NeuronSet]
    rankings: Callable[[Replication, Values], list[Ranking]] = _by_unusualness
    guess: bool = False


def _search(name: str, given: Any) -> Search:
    search = given if isinstance(given, Search) else Search(given)
    if not callable(search.find):
        raise TypeError(f"{search.find!r:.60} is not a function")
    return search


_OWN = {"gradient": Search(by_gradient, _by_sensitivity, guess=True), "listing": Search(by_listing)}
ONE_STEP = Methods("search", "searches", _OWN, _search)


def find(search: str, seen: Evidence) -> Found:
    """What a search of `ONE_STEP` finds.

    Of a bare set of neurons all else is measured. Raises InputError where a search gives something
    else.
    """
    replication = seen.replication
    found = ONE_STEP[search].find(replication, seen.z, seen.absolute)
    if isinstance(found, NeuronSet):
        gone = replication.similarity(found) <= replication.tau
        return Found(found, found, gone=gone)
    if not isinstance(found, Found):
        raise InputError(f"search {search!r} gives {found!r:.60}: a NeuronSet or Found is needed")
    return found


def first_guess(seen: Evidence) -> list[Neuron]:
    """At most eight neurons that hold the memory by one noisy step, the most unusual first.

    They are a 1-minimal set out of the first two rankings of `by_gradient`, tried on the seed that
    replicates best: what pictures then say decides. Where none suffices, or no seed replicates, it
    is the most unusual neuron alone. It costs up to 13 evaluations where it finds no set. Raises
    NumericalError if the model gives NaN.

        seen = evidence(model, "a caption", calibration)
        NeuronSet.of(first_guess(seen))
    """
    replication = seen.replication
    worth = most_unusual(seen.z)
    if not replication.kept:
        return worth[:1]
    gone: Test = partial(replication.gone, level=replication.tau)
    unusual, sensitive, *_ = _by_sensitivity(replication, seen.z)
    prefix = _first_prefix([unusual, lambda: sensitive()[:GUESS]], gone)
    if prefix is None:
        return worth[:1]
    neurons = minimize(
        prefix, gone, worth, partial(replication.needed_neurons, level=replication.tau)
    )
    return [n for n in worth if n in neurons]


def most_unusual(z: Values) -> list[Neuron]:
    """All value neurons of a caption, those of the largest |z| first; `z`: layer -> (width,)
    z-scores (Calibration.z_scores).
    """
    return descending({name: values.abs() for name, values in z.items()})


def weighed(gradient: Values, z: Values) -> dict[str, Tensor]:
    """Gradients times squared z-scores, layer -> (width,); a neuron that never
    varied counts as z = 100.

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


def ranked(replication: Replication, rankings: Sequence[Ranking], worth: Sequence[Neuron]) -> Found:
    """The shortest sufficient prefix of the first ranking that has one, made 1-minimal.

    The last ranking holds all neurons.

    Where there is a choice, the neurons that come last in `worth` are left out. Sets are tried on a
    few witnesses among the seeds; what comes out is confirmed on all of them. Where a seed
    disagrees, it becomes a witness, and the search starts again with what it knows. What a witness
    needs, all need: so the set stays 1-minimal. If not even all neurons together get to tau, the
    similarity they reach takes its place, as in Algorithm 3.
    """
    level = replication.tau
    while (found := _at_level(replication, rankings, level, worth)) is None:
        level = replication.similarity(NeuronSet.of(worth)) + SLACK
    return found


def alternatives(
    search: str, seen: Evidence, first: Found, heaviest: Callable[[NeuronSet], Neuron]
) -> Iterator[Found]:
    """Other 1-minimal sets that bring the memory down to tau, each without the `heaviest`
    neurons of all sets before it.

    No ranking is followed further than 32 neurons: a larger set is costly to reduce, and not
    gentle. What the search has measured and ranked is used again. The listing ranks no neurons: its
    alternatives are ranked by unusualness. Three at most, and none is begun after 400 evaluations.
    """
    replication = seen.replication
    worth = most_unusual(seen.z)
    rankings = ONE_STEP[search].rankings(replication, seen.z)
    found: Found | None = first
    ruled_out = EMPTY
    effort = 0
    for _ in range(ALTERNATIVES):
        if found is None or not found.neurons or effort >= EFFORT:
            return
        ruled_out = ruled_out | NeuronSet.of([heaviest(found.neurons)])
        others = [partial(_first, ranking, ruled_out) for ranking in rankings]
        allowed = [n for n in worth if n not in ruled_out]
        with spending() as spent:
            found = _at_level(replication, others, replication.tau, allowed)
        effort += spent.evaluations
        if found is not None:
            yield found


def _first(ranking: Ranking, ruled_out: NeuronSet) -> list[Neuron]:
    return [n for n in ranking() if n not in ruled_out][:MANY]


def _at_level(
    replication: Replication, rankings: Sequence[Ranking], level: float, worth: Sequence[Neuron]
) -> Found | None:
    """A set that brings the similarity down to `level`; None if not even the whole of the
    last ranking gets there.
    """
    gone: Test = partial(replication.gone, level=level)
    while (prefix := _first_prefix(rankings, gone)) is not None:
        neurons = minimize(prefix, gone, worth, partial(replication.needed_neurons, level=level))
        if replication.confirm(neurons, level):
            return Found(neurons, prefix, gone=level == replication.tau)
    return None


def _first_prefix(rankings: Iterable[Ranking], gone: Test) -> NeuronSet | None:
    prefixes = (sufficient_prefix(ranking(), gone) for ranking in rankings)
    return next((prefix for prefix in prefixes if prefix is not None), None)
