"""Localization: which neurons hold the memory of a prompt (Finding NeMo, section 3.3 and Algorithms 1 to 4).

May be imported: the names below and the modules here. May import: calibration, passes, images and what lies under them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from torch import Tensor

from findnemo.calibration import Calibration, layer_activations
from findnemo.errors import InputError
from findnemo.images import ImageSettings, usual
from findnemo.localization.candidates import initial_selection, out_of_distribution_neurons
from findnemo.localization.diagnosis import Diagnosis, diagnose
from findnemo.localization.gentle import EFFORT, Bystanders, Choice, bystanders, gentlest
from findnemo.localization.points import Point, chosen, priced
from findnemo.localization.refinement import refine
from findnemo.localization.replication import Replication
from findnemo.localization.scope import Scan, scan
from findnemo.localization.search import (
    DEFAULT,
    ONE_STEP,
    SEARCHES,
    Found,
    alternatives,
    first_guess,
    most_unusual,
)
from findnemo.localization.stability import consensus_of, frequency, iou, pairwise_iou
from findnemo.localization.trajectory import (
    COPIES,
    GENTLER,
    WHOLE,
    Copies,
    Trail,
    by_trajectory,
    few_steps,
    prices,
)
from findnemo.models import Model
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.passes.deltas import Probe
from findnemo.passes.denoising import Denoising
from findnemo.runtime.state import undisturbed

__all__ = [
    "DEFAULT",
    "ONE_STEP",
    "SEARCHES",
    "Bystanders",
    "Choice",
    "Diagnosis",
    "Found",
    "Localization",
    "Point",
    "Scan",
    "bystanders",
    "consensus_of",
    "diagnose",
    "frequency",
    "gentlest",
    "initial_selection",
    "iou",
    "localize",
    "localize_by_consensus",
    "most_unusual",
    "out_of_distribution_neurons",
    "pairwise_iou",
    "refine",
    "scan",
]


@dataclass(frozen=True)
class Localization:
    """Where the memory of a prompt sits.

    `memorized`: whether the prompt's score reached tau. `neurons`: the set to deactivate, empty if not memorized.
    `candidates`: the set that refinement began with. `score_before`: memorization score of the untouched model (of the pairs of
    seeds what the settings name). `score_after`: with `neurons` off, the largest similarity of a replicating seed's noise difference to
    its own before (the quantity that Algorithms 3 and 4 hold at or below tau). `reached`: whether it got there.
    `theta`, `k`: where Algorithm 3 stopped. `z`: z-score of every neuron found. `evaluations`: U-Net sample evaluations spent.
    `p`: p-value of `score_before` (`Calibration.p_value`). `frequency`: of a consensus, "layer:index" of every neuron found at all ->
    share of the searches that found it.
    Of the search "trajectory" also: `copy_before`, `copy_after`, how like the pictures are to untouched ones of other seeds (cosine of latents, the
    largest of the seeds that the search looked at); `scope`, where neurons were sought; `points`, the price list: the sets that it tried, each a prefix of `order`,
    its neurons in the order in which they went off (`at` gives one). Its `reached` says whether no picture is a copy any more. For a caption whose untouched pictures are no copies it is what "gradient" finds, which looks at
    one step: the trace of a memory, if it is one.
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
    p: float | None = None
    frequency: dict[str, float] = field(default_factory=dict)
    impact: float | None = None
    max_impact: float | None = None
    tried: int = 0
    scope: str = "paper"
    copy_before: float | None = None
    copy_after: float | None = None
    order: tuple[Neuron, ...] = ()
    points: tuple[Point, ...] = ()

    def at(self, neurons: int) -> tuple[NeuronSet, Point]:
        """A set of the price list by its size, and what is left and paid there. Raises InputError for a size that was not tried."""
        return chosen(self.order, self.points, neurons)

    def to_json(self) -> dict[str, Any]:
        values = {k: v for k, v in self.__dict__.items() if not isinstance(v, NeuronSet)}
        return values | {"neurons": self.neurons.to_json(), "candidates": self.candidates.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Localization:
        """What `to_json` gave, or an earlier findnemo, which kept no price list."""
        made: dict[str, Any] = {name: NeuronSet(values[name]) for name in ("neurons", "candidates")}
        made["order"] = tuple((name, index) for name, index in values.get("order", ()))
        made["points"] = tuple(Point(*point) for point in values.get("points", ()))
        return cls(**{name: value for name, value in values.items() if name != "sizes"} | made)


@undisturbed
def localize(
    model: Model,
    prompt: str,
    calibration: Calibration,
    search: str = DEFAULT,
    max_impact: float | None = None,
    unrelated: Bystanders | Sequence[str] = (),
    images: ImageSettings | None = None,
    scope: str = "all",
) -> Localization:
    """Find the neurons that hold the memory of a prompt; an empty set if the prompt is not memorized.

    `search`: "trajectory" (default) goes on until pictures are no copies any more (module `trajectory`), as `images` makes them (steps and guidance; by
    default the model's usual ones), among the value neurons of `scope`: "all", or those of the layers that the "paper" names. The others look at one
    noisy step, in the paper's layers: "gradient" ranks value neurons by a gradient and returns a 1-minimal set;
    "listing" is Algorithms 3 and 4 as published. `max_impact`: among sets that remove the memory prefer one that
    changes the captions of `unrelated` (not memorized) by no more than this, see `Bystanders`; if none is found, the gentlest is returned,
    and its `impact` tells. Raises MismatchError if the calibration, or `Bystanders`, belong to another model, InputError for an unknown search,
    an impact that is none, `max_impact` without captions, NumericalError if the model gives NaN.

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
    check_score(search, calibration)
    if isinstance(unrelated, Bystanders):
        unrelated.check(model)
    with model.steady():  # once for all passes of the search
        if search in ONE_STEP:
            return _localize(model, prompt, calibration, search, max_impact, unrelated, 1)
        others = (
            unrelated
            if isinstance(unrelated, Bystanders) or max_impact is None
            else Bystanders(model, unrelated, calibration.settings)
        )
        return _to_the_end(
            model, prompt, calibration, images or usual(model.source), scope, max_impact, others
        )


def localize_by_consensus(
    model: Model, prompt: str, calibration: Calibration, search: str, searches: int
) -> Localization:
    """Neurons that several searches by one step agree on, each on seeds of its own (base seeds seed, seed + 1, ...).

    They are those that more than half of the searches found, and as many more, in order of frequency, as it takes for the memory to be gone on
    the seeds of all of them. Raises InputError for fewer than one, or a search that is none by one step, MismatchError if the calibration
    belongs to another model, NumericalError if the model gives NaN.

        found = localize_by_consensus(model, "a caption", calibration, "gradient", searches=5)
    """
    if searches < 1:
        raise InputError(f"a consensus of {searches} searches: give 1 or more")
    if search not in ONE_STEP:
        raise InputError(
            f"a consensus is one of searches that look at one step ({', '.join(ONE_STEP)}): name one, or leave it out"
        )
    calibration.check(model)
    check_score(search, calibration)
    with model.steady():
        return _localize(model, prompt, calibration, search, None, (), searches)


def _to_the_end(
    model: Model,
    prompt: str,
    calibration: Calibration,
    images: ImageSettings,
    scope: str,
    max_impact: float | None,
    others: Any,
) -> Localization:
    widths, tau = model.widths(scope), calibration.tau
    probe = Probe(model, prompt, calibration.settings, reuse=True)
    z = calibration.z_scores(
        {name: rows[0] for name, rows in layer_activations(model, [prompt], probe.text).items()}
    )
    replication = Replication(probe, tau)
    score = replication.score
    known: dict[str, Any] = {
        "prompt": prompt,
        "score_before": score,
        "tau": tau,
        "search": "trajectory",
        "scope": scope,
    }
    known["p"] = calibration.p_value(score)
    if not replication.kept:
        return Localization(
            memorized=False, score_after=score, evaluations=probe.evaluations, **known
        )
    few = few_steps(images.steps)
    denoising = Denoising(model, prompt, COPIES + WHOLE, images.guidance, calibration.settings.seed)
    copies = Copies(denoising, few, images.steps)
    known["copy_before"] = round(copies.alike, 4)
    if not copies.seen:
        trace = _localize(model, prompt, calibration, "gradient", max_impact, others or (), 1)
        spent = trace.evaluations + denoising.evaluations
        return replace(
            trace, search="trajectory", copy_before=known["copy_before"], evaluations=spent
        )
    price = cache(lambda: prices(model, calibration.ordinary, widths, few, images.guidance))
    guess, spent = most_unusual(z)[:1], 0
    best, least = Trail((), (), False), math.inf
    for tried, gentle in enumerate(GENTLER if max_impact is not None else GENTLER[:1], 1):
        trail = by_trajectory(copies, widths, price, guess if tried == 1 else (), gentle)
        impact = 0.0
        if max_impact is not None:
            before = others.evaluations
            impact = others.impacts([trail.neurons], prompt)[0]
            spent += others.evaluations - before
            known |= {"max_impact": max_impact, "tried": tried}
        if tried == 1 or (trail.gone, -impact) > (best.gone, -least):
            best, least = trail, impact
            known |= {} if max_impact is None else {"impact": round(impact, 6)}
        if max_impact is None or not trail.gone or impact <= max_impact:
            break
    found = best.neurons
    points, cost = priced(model, calibration, prompt, best.order, best.tried)
    return Localization(
        memorized=True,
        reached=best.gone,
        score_after=replication.similarity(found),
        evaluations=probe.evaluations + denoising.evaluations + spent + cost,
        neurons=found,
        candidates=found,
        copy_after=points[-1].left,
        order=best.order,
        points=points,
        z={f"{name}:{i}": round(float(z[name][i]), 3) for name, i in found if name in z},
        **known,
    )


def _localize(
    model: Model,
    prompt: str,
    calibration: Calibration,
    search: str,
    max_impact: float | None,
    unrelated: Bystanders | Sequence[str],
    consensus: int,
) -> Localization:
    first = _searched(model, prompt, calibration, search)
    score, tau = first.replication.score, calibration.tau
    common: dict[str, Any] = {
        "prompt": prompt,
        "score_before": score,
        "tau": tau,
        "search": search,
        "p": calibration.p_value(score),
    }
    if first.found is None:
        return Localization(
            memorized=False, score_after=score, evaluations=first.evaluations, **common
        )
    more = [_searched(model, prompt, calibration, search, repeat) for repeat in range(1, consensus)]
    searches = [
        first,
        *(s for s in more if s.found is not None),
    ]  # on other seeds the prompt may stay under tau
    found, shares = _agreed(searches) if consensus > 1 else (first.found, {})
    spent = 0
    if max_impact is not None:
        others = (
            unrelated
            if isinstance(unrelated, Bystanders)
            else Bystanders(model, unrelated, calibration.settings)
        )
        before = others.evaluations
        choice = _gentle(first.replication, found, search, first.z, tau, max_impact, others)
        found, spent = choice.found, others.evaluations - before
        common |= {
            "impact": round(choice.impact, 6),
            "max_impact": max_impact,
            "tried": choice.tried,
        }
    after = max(s.replication.similarity(found.neurons) for s in searches)
    return Localization(
        memorized=True,
        reached=after <= tau,
        score_after=after,
        evaluations=first.evaluations + sum(s.evaluations for s in more) + spent,
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
        return self.replication.confirmed(
            neurons, max(self.tau, self.replication.similarity(self.found.neurons))
        )


def _searched(
    model: Model, prompt: str, calibration: Calibration, search: str, repeat: int = 0
) -> _Search:
    """A search on the seeds that belong to a base seed, counted from the calibration's."""
    settings = replace(calibration.settings, seed=calibration.settings.seed + repeat)
    probe = Probe(model, prompt, settings, reuse=True)
    absolute = {
        name: rows[0] for name, rows in layer_activations(model, [prompt], probe.text).items()
    }
    z = calibration.z_scores(absolute)
    replication = Replication(probe, calibration.tau, first_guess(search, z))
    found = (
        ONE_STEP[search](replication, z, absolute, calibration.tau) if replication.kept else None
    )
    return _Search(replication, z, found, calibration.tau)


def _agreed(searches: list[_Search]) -> tuple[Found, dict[str, float]]:
    """The consensus of searches, refined from all that they found; and how often each neuron was."""
    sets = [s.found.neurons for s in searches if s.found is not None]
    shares = frequency(sets)
    neurons = consensus_of(sets, lambda neurons: all(s.gone(neurons) for s in searches))
    return Found(neurons, NeuronSet.of(shares)), {
        f"{name}:{i}": round(share, 3) for (name, i), share in shares.items()
    }


def check_score(search: str, calibration: Calibration) -> None:
    """Raises InputError where a published procedure is asked for by another score."""
    if search == "listing" and calibration.settings.pairs != "largest":
        raise InputError(
            "the listing is the paper's procedure, and this calibration has another score: calibrate with variant 'paper'"
        )


def check_impact(max_impact: float | None) -> None:
    """Raises InputError for what is no impact: a number from 0 (nothing changes) to 2."""
    if max_impact is not None and not (math.isfinite(max_impact) and 0 <= max_impact <= 2):
        raise InputError(
            f"an impact of {max_impact} is no mean of 1 - SSIM: give a number from 0 to 2, such as 0.02"
        )


def _gentle(
    replication: Replication,
    found: Found,
    search: str,
    z: Any,
    tau: float,
    max_impact: float,
    others: Bystanders,
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
        lambda without: (
            another(without) if replication.probe.evaluations - began < EFFORT else None
        ),
        **tries,
    )
