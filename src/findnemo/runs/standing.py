"""What the results of a caption say: which of three states it is in, how it stands after an audit
in one word, and what is switched off.

Every face (terminal, report, app, trackers, model card) takes its words from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from findnemo.localization.points import DEAR, Point, chosen
from findnemo.metrics.copies import copies_in
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.results import Verified
from findnemo.runs.store import Caption

STAGES = ("detect", "localize", "verify")

STATES = {
    "memorized": (
        "its score is over the threshold, and nothing that was looked at says that it is ordinary"
    ),
    "suspected": (
        "its score is over the threshold, but its untouched images are no copies: nothing is"
        " switched off for it"
    ),
    "not memorized": "its score is under the threshold",
}


class Word(NamedTuple):
    """How a caption stands: what that means, as a sentence without its subject; whether it is
    "good", "bad", "open" or nothing of note; a few words beside the caption; and what
    captions that stand so did, where that is trouble.
    """

    means: str
    tone: str = ""
    beside: str = ""
    clause: str = ""


WORDS = {  # worst first
    "failed": Word("a step failed on it", "bad", "failed", "failed"),
    "out of reach": Word(
        "no set of value neurons that the search tried removes its memory; nothing is switched off"
        " for it",
        "bad",
        "out of reach",
        "stayed out of reach",
    ),
    "back": Word(
        "no finished images were judged, and on fresh seeds its noise differences still resemble"
        " those before",
        "bad",
        "back on fresh seeds",
        "came back on fresh seeds",
    ),
    "copies": Word(
        "its finished images still hold copies", "bad", "still gives copies", "still gave copies"
    ),
    "not replicated": Word(
        "its neurons were found, but on fresh seeds its score does not reach tau: there is nothing"
        " to check them on",
        "open",
        "no fresh seed replicates",
        "could not be checked, for no fresh seed replicates",
    ),
    "not verified": Word(
        "its neurons were found, but not checked on fresh seeds",
        "open",
        "not verified",
        "had neurons found but not verified",
    ),
    "not localized": Word(
        "memorized, its neurons were not sought",
        "open",
        "not localized",
        "had no search for neurons",
    ),
    "no neurons": Word(
        "over tau in detection, but no seed replicated in the search",
        "bad",
        "no neurons found",
        "did not replicate in the search",
    ),
    "gone": Word("its memory is gone on fresh seeds", "good", "gone on fresh seeds"),
    "suspected": Word(
        "over tau, but its untouched images are no copies of each other: nothing is switched off"
        " for it",
        "open",
        "suspected, no copies seen",
    ),
    "open": Word("not looked at yet"),
    "not memorized": Word("its score is under tau"),
}
STANDINGS = {word: said.means for word, said in WORDS.items()}
BAD = ("out of reach", "back", "copies")  # standings of memories that were checked and are not gone


def copies(checked: Verified, when: str) -> bool | None:
    """Whether the finished images of a caption hold copies, `when` "before" the neurons went off or
    "after" (`metrics.copies.copies_in`); None if none were judged.

    >>> seen = Verified(copies_before=1.0, copies_after=0.25)
    >>> copies(seen, "before"), copies(seen, "after"), copies(Verified(), "after")
    (True, True, None)
    """
    return copies_in(checked.__dict__, when)


def state(caption: Caption) -> str | None:
    """One of STATES; None before detection.

    A caption whose score reaches tau is memorized, by the paper's definition, until its untouched
    images have been looked at and are no copies: then it is suspected. One that is on the run's
    list at a false discovery rate stays memorized whatever its images are: a template memory copies
    only a part of a picture. So does one that was seen to copy a training picture.
    """
    if caption.detected is None:
        return None
    if not caption.detected.memorized:
        return "not memorized"
    seen = None if caption.verified is None else copies(caption.verified, "before")
    proven = caption.listed or caption.detected.copies
    return "suspected" if seen is False and not proven else "memorized"


def standing(caption: Caption) -> str:
    """One of STANDINGS: what the committed results of an audit say of a caption.

    The neurons of all captions off together decide, as they are exported, where that was looked at
    (`judged`); a memory that none of its own neurons reach is gone if those of others remove it.

    Gone: untouched images of most seeds are copies, and with the neurons off none is. Finished
    images decide, for a noise difference looks at one step of many. Where none were judged: no
    noise difference of a fresh seed that replicated is more like itself before than the threshold.

    >>> under = {"memorized": False, "score": 0.1, "tau": 0.4}
    >>> standing(Caption(1, "a cat", 1, None, None, {"detect": under}, {}, 0.1))
    'not memorized'
    """
    is_ = state(caption)
    if failures(caption):
        return "failed"
    if is_ != "memorized" or caption.detected is None:
        return is_ or "open"
    if caption.localized is None:
        return "not localized"
    if not caption.localized.neurons:
        return "no neurons"
    checked = judged(caption)
    if not caption.localized.reached:
        whole = caption.together or Verified()
        removed = copies(whole, "before") and not copies(whole, "after")
        return "gone" if removed else "out of reach"
    if checked is None:
        return "not verified"
    return _verified(checked, caption.detected.tau)


def judged(caption: Caption) -> Verified | None:
    """What is seen of a caption in the cleaned model: with the neurons of all captions off, where
    that was looked at, else with its own.
    """
    return caption.together or caption.verified


def checked_with(caption: Caption) -> str | None:
    """Which neurons were off when a caption was judged: those of all captions, as they are exported,
    or its own; None where it was not.
    """
    if judged(caption) is None:
        return None
    return "its own neurons" if caption.together is None else "the neurons of all captions"


def _verified(checked: Verified, tau: float) -> str:
    """How a memory stands that was checked on fresh seeds."""
    if copies(checked, "before"):
        return "copies" if copies(checked, "after") else "gone"
    if checked.same_seed is None:
        return "not replicated"
    return "back" if checked.same_seed > tau else "gone"


def image_name(caption: Caption, when: str) -> str:
    """What the files of a caption's images "before" or "after" are called before their number: quick
    ones, in few steps, are told apart. `folder_of` says where they lie.

    >>> image_name(Caption(1, "a cat", 1, None, None, {"verify": {"steps": 3}}, {}, 0.1), "after")
    'quick-after'
    """
    checked = judged(caption)
    quick = checked is not None and checked.steps is not None
    return f"quick-{when}" if quick else when


def folder_of(caption: Caption) -> str:
    """Where in a run directory the pictures of a caption lie that `judged` is of, in folders
    `images`, `noise` and `sheets`: beside the database, or those of the cleaned model apart.

    >>> folder_of(Caption(1, "a cat", 1, None, None, {}, {}, 0.1))
    '.'
    """
    return "." if caption.together is None else cleaned(caption.unions[-1])


def cleaned(digest: str) -> str:
    """The folder of pictures with a set of neurons off that is told by its digest."""
    return f"cleaned/{digest}"


def failures(caption: Caption) -> dict[str, str]:
    """Stages of the audit that failed on a caption, with the reason.

    A mitigation or a study that failed on it says nothing of the caption, nor does a set of neurons
    that is not the exported one.
    """
    stages = (*STAGES, *(f"union:{digest}" for digest in caption.unions[-1:]))
    return {stage: reason for stage, reason in caption.failed.items() if stage in stages}


def neurons_of(caption: Caption) -> NeuronSet:
    """The neurons that the search found for a caption, by itself."""
    return EMPTY if caption.localized is None else caption.localized.neurons


def joined(caption: Caption) -> NeuronSet:
    """The neurons that went off beside those of all captions since a copy of this one had come
    back.
    """
    return NeuronSet.of(n for found in caption.further if found.reached for n in found.neurons)


def with_joined(caption: Caption) -> NeuronSet:
    """The neurons that were found for a caption, and those that joined them."""
    more = joined(caption)
    return neurons_of(caption) | more if more else neurons_of(caption)


def z_scores(caption: Caption) -> dict[str, float]:
    """ "layer:index" -> z-score, of the neurons of a caption for which it is known."""
    return {} if caption.localized is None else caption.localized.z


def impact_of(caption: Caption) -> float | None:
    """The impact of a caption's neurons on unrelated captions; None where it was not measured."""
    return None if caption.localized is None else caption.localized.impact


def evaluations_of(caption: Caption) -> int:
    """U-Net sample evaluations that detection and localization of a caption took."""
    parts = (caption.detected, caption.localized)
    return sum(part.evaluations for part in parts if part is not None)


def points_of(caption: Caption) -> tuple[Point, ...]:
    """The price list of a caption's memory: sets that its search tried, by size; none
    where it had no such search.
    """
    return () if caption.localized is None else caption.localized.points


def prefix_of(caption: Caption, neurons: int) -> tuple[NeuronSet, Point]:
    """The set of a caption's price list that has so many neurons.

    Raises InputError for a number that was not tried.
    """
    order = () if caption.localized is None else caption.localized.order
    return chosen(order, points_of(caption), neurons)


def falls(caption: Caption) -> bool:
    """Whether the search found neurons with which the memory of a caption, if
    it is one, falls to tau.
    """
    return caption.localized is not None and caption.localized.reached and bool(neurons_of(caption))


def dear(caption: Caption) -> bool:
    """Whether there is something to choose: no set that was tried removes the memory, or the
    last one costs ordinary captions more than .05.
    """
    found = caption.localized
    if found is None or not found.points:
        return False
    return not found.reached or (found.points[-1].change or 0.0) > DEAR


def switched_off(caption: Caption) -> NeuronSet:
    """The neurons that are off in the cleaned model for the sake of a caption: those found for it,
    and those that joined them, if it is memorized and its memory falls to tau.

    None for a caption that is only suspected, nor for one that is out of reach: it would change the
    model and remove no memory.
    """
    return with_joined(caption) if falls(caption) and state(caption) != "suspected" else EMPTY


def all_neurons(captions: Iterable[Caption]) -> NeuronSet:
    """The neurons that are off in the cleaned model, for all of the captions together; those
    that several share once.
    """
    return NeuronSet.of(n for c in captions for n in switched_off(c))
