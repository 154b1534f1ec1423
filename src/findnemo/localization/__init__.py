"""Localization: which neurons hold the memory of a prompt (Finding NeMo, section
3.3 and Algorithms 1 to 4).

May be imported: the names below and the modules here. May import: calibration, passes, images and
what lies under them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from findnemo.calibration import Calibration
from findnemo.errors import InputError
from findnemo.images import latents_of, usual
from findnemo.localization.diagnosis import Diagnosis, diagnose
from findnemo.localization.gentle import Bystanders, Choice, bystanders, gentlest
from findnemo.localization.listing import initial_selection, out_of_distribution_neurons, refine
from findnemo.localization.points import Point, priced
from findnemo.localization.result import DEFAULT, Further, Localization
from findnemo.localization.scope import Scan, scan
from findnemo.localization.search import (
    ONE_STEP,
    Evidence,
    Found,
    Search,
    alternatives,
    evidence,
    find,
    first_guess,
    most_unusual,
)
from findnemo.localization.stability import frequency, iou, pairwise_iou
from findnemo.localization.trajectory import (
    COPIES,
    GENTLER,
    MANY,
    WHOLE,
    Copies,
    Trail,
    TrajectorySearch,
    by_trajectory,
    prices,
)
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Denoising, spending
from findnemo.runtime.state import undisturbed

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "DEFAULT",
    "ONE_STEP",
    "Bystanders",
    "Choice",
    "Diagnosis",
    "Evidence",
    "Found",
    "Further",
    "Localization",
    "Point",
    "Scan",
    "Search",
    "TrajectorySearch",
    "bystanders",
    "diagnose",
    "evidence",
    "frequency",
    "gentlest",
    "initial_selection",
    "iou",
    "localize",
    "localize_copies",
    "localize_further",
    "most_unusual",
    "out_of_distribution_neurons",
    "pairwise_iou",
    "refine",
    "scan",
]

F = TypeVar("F", Found, Trail)
Limit = tuple[float, Bystanders]  # the largest impact that is wanted, and on what it is measured


@undisturbed
def localize(
    model: Model,
    prompt: str,
    calibration: Calibration,
    search: str | TrajectorySearch = DEFAULT,
    max_impact: float | None = None,
    unrelated: Bystanders | Sequence[str] = (),
) -> Localization:
    """Find the neurons that hold the memory of a prompt; an empty set if the prompt is not
    memorized.

    `search`: "trajectory" (default) searches until pictures are no longer copies; a
    `TrajectorySearch` does so with other options. The other searches look at one noisy step, in the
    paper's layers. "gradient" ranks value neurons by a gradient and returns a 1-minimal set.
    "listing" is Algorithms 3 and 4 as published. Installed packages may add more (`ONE_STEP`).

    `max_impact`: among sets that remove the memory, prefer one that changes the captions
    `unrelated` (not memorized) by no more than this, see `Bystanders`. If there is none, the
    gentlest set is returned, and its `impact` shows by how much.

    Raises MismatchError if the calibration, or `Bystanders`, belong to another model, InputError
    for an unknown search, an invalid impact, or `max_impact` without captions, NumericalError if
    the model gives NaN.

        >>> import findnemo
        >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
        >>> found = findnemo.localize(model, "Brantwood Roasters first cup, a large brown ring", calibration)
        >>> found.memorized, len(found.neurons) > 0, found.score_after <= calibration.tau
        (True, True, True)
    """
    if search == DEFAULT:
        search = TrajectorySearch()
    if isinstance(search, str):
        check_search(search)
        check_score(search, calibration)
    check_impact(max_impact)
    calibration.check(model)
    if isinstance(unrelated, Bystanders):
        unrelated.check(model)
    with model.steady(), spending() as spent:  # steady: once for all passes of the search
        limit = None
        if max_impact is not None:
            if not isinstance(unrelated, Bystanders):
                unrelated = Bystanders(model, unrelated, calibration.settings)
            limit = max_impact, unrelated
        if isinstance(search, str):
            found = _by_one_step(model, prompt, calibration, search, limit)
        else:
            found = _to_the_end(model, prompt, calibration, search, limit)
    return replace(found, evaluations=spent.evaluations)


@undisturbed
def localize_copies(
    model: Model,
    prompt: str,
    calibration: Calibration,
    originals: Sequence[Image.Image],
    search: TrajectorySearch = TrajectorySearch(),
) -> Localization:
    """Find the neurons with which a prompt gives copies of known pictures, whatever its score is.

    `originals`: the pictures, as RGB. Other than in `localize`, a copy is an image that is like one
    of them, and not every seed need give one, nor all the same. Where none of 32 seeds gives a
    copy, the search is that of `localize`; if the prompt is not memorized either, no neurons are
    found, and `reached` is false. Raises MismatchError if the calibration belongs to another model,
    NumericalError if the model gives NaN.

        picture = PIL.Image.open("photo.png").convert("RGB")
        found = localize_copies(model, "a photo of sks dog", calibration, [picture])
    """
    calibration.check(model)
    with model.steady(), spending() as spent:
        known = _latents(model, originals)
        found = _to_the_end(model, prompt, calibration, search, originals=known)
    return replace(found, evaluations=spent.evaluations)


@undisturbed
def localize_further(
    model: Model,
    prompt: str,
    calibration: Calibration,
    off: NeuronSet,
    failed: Sequence[int],
    originals: Sequence[Image.Image] = (),
    search: TrajectorySearch = TrajectorySearch(),
) -> Further:
    """Continue the search for a prompt that gives copies with the neurons `off`: which other
    neurons must go off as well?

    `failed`: numbers of the samples that gave the copies. The search asks them first from here on.
    They prove nothing any more, so judge the set that is found on samples that no search has seen.
    If quick steps do not show what `failed` gave, all steps are looked at. `originals`: the
    pictures that are copied, if they are known, as RGB. Raises MismatchError if the calibration
    belongs to another model, NumericalError if the model gives NaN.

        found = localize(model, prompt, calibration)
        # with `found.neurons` and those of another prompt off, sample 1002 was a copy
        more = localize_further(model, prompt, calibration, found.neurons | others, [1002])
        findnemo.prune(model, found.neurons | others | more.neurons)
    """
    calibration.check(model)
    images = search.images or usual(model.source)
    with model.steady(), spending() as spent:
        known = _latents(model, originals) if originals else None
        samples = COPIES + WHOLE if known is None else MANY
        denoising = Denoising(
            model, prompt, samples, images.guidance, calibration.settings.seed, more=failed
        )
        witnesses = range(samples, samples + len(failed))
        for closely in dict.fromkeys((search.thorough, True)):
            copies = Copies.of(denoising, images.steps, known, closely, off, witnesses)
            if closely and not search.thorough:
                copies.steps = copies.whole
            found = _further(model, prompt, calibration, copies, search.scope)
            if found.order or not found.reached:
                break
    return replace(found, evaluations=spent.evaluations)


def _latents(model: Model, pictures: Sequence[Image.Image]) -> Tensor:
    return torch.cat([latents_of(picture, model) for picture in pictures]).float()


def _further(
    model: Model, prompt: str, calibration: Calibration, copies: Copies, scope: str
) -> Further:
    """What has to go off beside `copies.off`; nothing, and reached, where the witnesses give no copy
    as it is.
    """
    if not copies.has_copies:
        return Further()
    widths = model.widths(scope)
    if not copies.off.layers.keys() <= widths.keys():
        widths = model.widths("all")
    whole = None if copies.thorough else copies.whole
    guidance = copies.denoising.guidance or 0.0
    price = cache(lambda: prices(model, calibration.ordinary, widths, copies.few, guidance, whole))
    trail = by_trajectory(copies, widths, price)
    points = priced(model, calibration, prompt, trail.order, trail.tried, copies.off)
    return Further(trail.neurons if trail.gone else EMPTY, trail.gone, trail.order, points)


def check_search(search: str) -> None:
    """Raises InputError for a search that is not known, or of a package that cannot be used.

    >>> check_search("gradient")
    """
    if search == DEFAULT:
        return
    if search not in ONE_STEP:
        known = ", ".join((DEFAULT, *ONE_STEP))
        raise InputError(f"search {search!r} is not known: use one of {known}")
    ONE_STEP.require(search)


def check_score(search: str, calibration: Calibration) -> None:
    """Raises InputError where a published procedure is asked for by another score."""
    if search == "listing" and calibration.settings.pairs != "largest":
        raise InputError(
            "the listing is the paper's procedure, and this calibration has another score:"
            " calibrate with variant 'paper'"
        )


def check_impact(max_impact: float | None) -> None:
    """Raises InputError for what is no impact: a number from 0 (nothing changes) to 2."""
    if max_impact is not None and not (math.isfinite(max_impact) and 0 <= max_impact <= 2):
        raise InputError(
            f"an impact of {max_impact} is not a mean of 1 - SSIM: give a number from 0 to 2, such"
            " as 0.02"
        )


def _by_one_step(
    model: Model, prompt: str, calibration: Calibration, search: str, limit: Limit | None
) -> Localization:
    seen = evidence(model, prompt, calibration, ONE_STEP[search].guess)
    replication = seen.replication
    answer = _ordinary(prompt, calibration, seen, search)
    if not replication.kept:
        return answer
    found = find(search, seen)
    if limit is not None:
        _, others = limit
        # where the search could not bring the memory to tau, its set stays, for nothing removes it
        more = alternatives(search, seen, found, lambda neurons: others.heaviest(neurons, prompt))
        found, answer = _gentlest(answer, chain([found], more if found.gone else ()), limit)
    after = replication.similarity(found.neurons)
    return replace(
        answer,
        memorized=True,
        reached=after <= calibration.tau,
        score_after=after,
        neurons=found.neurons,
        candidates=found.candidates,
        theta=found.theta,
        k=found.k,
        z=_z_of(found.neurons, seen.z),
    )


def _to_the_end(
    model: Model,
    prompt: str,
    calibration: Calibration,
    search: TrajectorySearch,
    limit: Limit | None = None,
    originals: Tensor | None = None,
) -> Localization:
    seen = evidence(model, prompt, calibration)
    answer = replace(_ordinary(prompt, calibration, seen, DEFAULT), scope=search.scope)
    if originals is None and not seen.replication.kept:
        return answer
    seed = calibration.settings.seed
    samples = COPIES + WHOLE if originals is None else MANY
    images = search.images or usual(model.source)
    denoising = Denoising(model, prompt, samples, images.guidance, seed)
    copies = Copies.of(denoising, images.steps, originals, search.thorough)
    answer = replace(answer, copy_before=round(copies.alike, 4))
    if not copies.has_copies:
        if originals is not None and seen.replication.kept:  # alike among themselves, perhaps
            return _to_the_end(model, prompt, calibration, search, limit)
        if originals is not None:
            return replace(answer, memorized=True, reached=False)
        trace = _by_one_step(model, prompt, calibration, "gradient", limit)
        return replace(trace, search=DEFAULT, copy_before=answer.copy_before)
    widths = model.widths(search.scope)
    whole = None if copies.thorough else images.steps
    price = cache(
        lambda: prices(model, calibration.ordinary, widths, copies.few, images.guidance, whole)
    )

    def trails() -> Iterator[Trail]:
        guess = first_guess(seen)
        for gentle in GENTLER:
            trail = by_trajectory(copies, widths, price, guess, gentle)
            yield trail
            if not trail.gone:
                return
            guess = []

    if limit is None:
        trail = next(trails())
    else:
        trail, answer = _gentlest(answer, trails(), limit)
    points = priced(model, calibration, prompt, trail.order, trail.tried)
    if seen.replication.kept:
        answer = replace(answer, score_after=seen.replication.similarity(trail.neurons))
    return replace(
        answer,
        memorized=True,
        reached=trail.gone,
        neurons=trail.neurons,
        candidates=trail.neurons,
        copy_after=points[-1].left,
        order=trail.order,
        points=points,
        z=_z_of(trail.neurons, seen.z),
    )


def _gentlest(answer: Localization, sets: Iterable[F], limit: Limit) -> tuple[F, Localization]:
    """The gentlest of some sets that remove a memory, and the answer with its impact."""
    most, others = limit
    choice = gentlest(sets, most, lambda neurons: others.impacts([neurons], answer.prompt)[0])
    impact = round(choice.impact, 6)
    return choice.found, replace(answer, max_impact=most, impact=impact, tried=choice.tried)


def _ordinary(prompt: str, calibration: Calibration, seen: Evidence, search: str) -> Localization:
    """What is said of a prompt that is not memorized, and what all other answers begin with."""
    score = seen.replication.score
    p = calibration.p_value(score)
    return Localization(prompt, False, score, score, calibration.tau, search=search, p=p)


def _z_of(neurons: NeuronSet, z: dict[str, Tensor]) -> dict[str, float]:
    return {f"{name}:{i}": round(float(z[name][i]), 3) for name, i in neurons if name in z}
