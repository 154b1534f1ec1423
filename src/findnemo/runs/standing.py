"""What the results of a caption say: which of three states it is in, how it stands after an audit in one word, and what is switched off.

Every face (terminal, report, app, trackers, model card) takes its words from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from findnemo.localization.points import DEAR, Point, chosen
from findnemo.metrics.copies import COPYING
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.store import Caption

STAGES = ("detect", "localize", "verify")
TRAINED = 0.7  # similarity to the training image from which an image is a copy of it (Finding NeMo, section 4: SSCD)

STATES = {
    "memorized": "its score is over the threshold, and nothing that was looked at says that it is ordinary",
    "suspected": "its score is over the threshold, but its untouched images are no copies: nothing is switched off for it",
    "not memorized": "its score is under the threshold",
}
STANDINGS = {  # worst first
    "failed": "a step failed on it",
    "out of reach": "no set of value neurons that the search tried removes its memory; nothing is switched off for it",
    "back": "no finished images were judged, and on fresh seeds its noise differences still resemble those before",
    "copies": "its finished images still hold copies",
    "not replicated": "its neurons were found, but on fresh seeds its score does not reach tau: there is nothing to check them on",
    "not verified": "its neurons were found, but not checked on fresh seeds",
    "not localized": "memorized, its neurons were not sought",
    "no neurons": "over tau in detection, but no seed replicated in the search",
    "gone": "its memory is gone on fresh seeds",
    "suspected": "over tau, but its untouched images are no copies of each other: nothing is switched off for it",
    "open": "not looked at yet",
    "not memorized": "its score is under tau",
}
BAD = ("out of reach", "back", "copies")  # standings of memories that were checked and are not gone


def copies(checked: Mapping[str, Any], when: str) -> bool | None:
    """Whether the finished images of a caption hold copies, `when` "before" the neurons went off or "after"; None if none were judged.

    Before: most untouched images are copies of what other seeds gave, or their median similarity to the training image is .7 or more.
    After: where that was so of the untouched images, any image is a copy of an untouched one of another seed; or the median similarity to
    the training image still is .7 or more. A likeness of two images of which most are not alike is chance.

    >>> copies({"copies_before": 0.25, "copies_after": 0.25}, "before"), copies({"copies_before": 1.0, "copies_after": 0.25}, "after")
    (False, True)
    """
    judged = []
    if "copies_before" in checked:
        many = checked["copies_before"] >= COPYING
        judged.append(many if when == "before" else many and checked["copies_after"] > 0)
    if (trained := checked.get(f"sscd_orig_{when}")) is not None:
        judged.append(trained >= TRAINED)
    return any(judged) if judged else None


def state(caption: Caption) -> str | None:
    """One of STATES; None before detection.

    A caption whose score reaches tau is memorized, by the paper's definition, until its untouched images have been looked at and are no
    copies: then it is suspected. One that is on the run's list at a false discovery rate stays memorized whatever its images are: a
    template memory copies only a part of a picture.
    """
    detected = caption.results.get("detect")
    if detected is None:
        return None
    if not detected["memorized"]:
        return "not memorized"
    seen = copies(caption.results.get("verify", {}), "before")
    return "suspected" if seen is False and not caption.listed else "memorized"


def standing(caption: Caption, tau: float | None = None) -> str:
    """One of STANDINGS: what the committed results of an audit say of a caption. `tau`: the threshold; by default that of its detection.

    Gone: untouched images of most seeds are copies, and with the neurons off none is. Finished images decide, for a noise difference looks at one step
    of many. Where none were judged: no noise difference of a fresh seed that replicated is more like itself before than `tau`.

    >>> standing(Caption(1, "a cat", 1, None, None, {"detect": {"memorized": False}}, {}, 0.1), 0.4)
    'not memorized'
    """
    found, checked, now = (
        caption.results.get("localize"),
        caption.results.get("verify"),
        state(caption),
    )
    if failures(caption):
        return "failed"
    if now != "memorized":
        return now or "open"
    if found is None:
        return "not localized"
    if not any(found["neurons"].values()):
        return "no neurons"
    if not found["reached"]:
        return "out of reach"
    if checked is None:
        return "not verified"
    return _verified(checked, caption.results["detect"].get("tau") if tau is None else tau)


def _verified(checked: Mapping[str, Any], tau: float | None) -> str:
    """How a memory stands that was checked on fresh seeds."""
    same_seed = checked.get("same_seed")
    if copies(checked, "before"):
        return "copies" if copies(checked, "after") else "gone"
    if same_seed is None:
        return "not replicated"
    return "back" if tau is not None and same_seed > tau else "gone"


def failures(caption: Caption) -> dict[str, str]:
    """Stages of the audit that failed on a caption, with the reason. A mitigation or a study that failed on it says nothing of the caption."""
    return {stage: reason for stage, reason in caption.failed.items() if stage in STAGES}


def neurons_of(caption: Caption) -> NeuronSet:
    """The neurons found for a caption: those of the search, and what verification had to add."""
    found, checked = (caption.results.get(stage, {}) for stage in ("localize", "verify"))
    return NeuronSet(checked.get("neurons", found.get("neurons", {})))


def points_of(caption: Caption) -> tuple[Point, ...]:
    """The price list of a caption's memory: sets that its search tried, by size; none where it had no such search."""
    return tuple(Point(*point) for point in caption.results.get("localize", {}).get("points") or ())


def prefix_of(caption: Caption, neurons: int) -> tuple[NeuronSet, Point]:
    """The set of a caption's price list that has so many neurons. Raises InputError for a number that was not tried."""
    order = caption.results.get("localize", {}).get("order") or ()
    return chosen([(name, index) for name, index in order], points_of(caption), neurons)


def dear(caption: Caption) -> bool:
    """Whether there is something to choose: no set that was tried removes the memory, or the last one costs ordinary captions more than .05."""
    points = points_of(caption)
    return bool(points) and (
        not caption.results["localize"]["reached"] or (points[-1].change or 0.0) > DEAR
    )


def switched_off(caption: Caption) -> NeuronSet:
    """The neurons that are off in the cleaned model for the sake of a caption: those found for it, if it is memorized and its memory falls to tau.

    None for a caption that is only suspected, nor for one that is out of reach: it would change the model and remove no memory.
    """
    falls = bool(caption.results.get("localize", {}).get("reached"))
    return neurons_of(caption) if falls and state(caption) != "suspected" else EMPTY


def all_neurons(captions: Iterable[Caption]) -> NeuronSet:
    """The neurons that are off in the cleaned model, for all of the captions together; those that several share once."""
    return NeuronSet.of(n for c in captions for n in switched_off(c))
