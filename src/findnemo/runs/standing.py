"""What the results of a caption mean: its state (one of three), its standing after an audit (one
word), and what is switched off for it.

Terminal, report, app, trackers and model card all take their words from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from findnemo.localization.points import DEAR, Point, set_of_size
from findnemo.localization.trajectory import SAME
from findnemo.metrics.copies import copies_in
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.results import Localized, Verified
from findnemo.runs.store import Caption

STAGES = ("detect", "localize", "verify")

STATES = {
    "memorized": (
        "its score reaches tau, and copies were seen: its untouched images are copies of each other"
        " or of a training picture; or it is on the run's list at a false discovery rate"
    ),
    "suspected": "its score reaches tau, and no copy of it was seen",
    "not memorized": "its score is under tau",
}


class Word(NamedTuple):
    """A standing: its meaning, its tone, and what captions of this standing did.

    The meaning is a sentence without its subject. The tone is "good", "bad", "open" or nothing. The
    last field is set only for standings that mean trouble.
    """

    means: str
    tone: str = ""
    clause: str = ""


WORDS = {  # worst first
    "failed": Word("a step failed on it", "bad", "failed"),
    "out of reach": Word(
        "no set of value neurons that the search tried removes its memory; nothing is switched off"
        " for it",
        "bad",
        "stayed out of reach",
    ),
    "reduced": Word(
        "no set of value neurons that the search tried removes its memory, but with those found"
        " there are fewer copies; they are switched off on request only",
        "bad",
        "gave fewer copies than before",
    ),
    "back": Word(
        "no finished images were judged, and on fresh seeds its noise differences still resemble"
        " those before",
        "bad",
        "came back on fresh seeds",
    ),
    "copies": Word("its finished images still hold copies", "bad", "still gave copies"),
    "not replicated": Word(
        "its neurons were found, but on fresh seeds its score does not reach tau: there is nothing"
        " to check them on",
        "open",
        "could not be checked, for no fresh seed replicates",
    ),
    "not verified": Word(
        "its neurons were found, but not checked on fresh seeds",
        "open",
        "had neurons found but not verified",
    ),
    "not localized": Word("its neurons were not sought", "open", "had no search for neurons"),
    "no neurons": Word(
        "memorized, but no seed replicated in the search, so there is nothing to switch off",
        "bad",
        "did not replicate in the search",
    ),
    "gone": Word("its memory is gone on fresh seeds", "good"),
    "suspected": Word(STATES["suspected"], "open"),
    "open": Word("not looked at yet"),
    "not memorized": Word("its score is under tau"),
}
STANDINGS = {word: entry.means for word, entry in WORDS.items()}
# standings of memories that were checked and are not gone
BAD = ("out of reach", "reduced", "back", "copies")


def copies(checked: Verified, when: str) -> bool | None:
    """Whether the finished images of a caption contain copies (`metrics.copies.copies_in`).

    `when`: "before" the neurons are off, or "after". None if no images were judged.

    >>> seen = Verified(copies_before=1.0, copies_after=0.25)
    >>> copies(seen, "before"), copies(seen, "after"), copies(Verified(), "after")
    (True, True, None)
    """
    return copies_in(checked.__dict__, when)


def gives_copies(caption: Caption) -> bool | None:
    """Whether finished images of the untouched model are copies; None if none was looked at."""
    return None if caption.verified is None else copies(caption.verified, "before")


def state(caption: Caption) -> str | None:
    """The state of a caption, one of STATES; None before detection.

    A caption whose score reaches tau is suspected until a copy is seen: one ordinary caption in
    eight is over the paper's threshold. It is memorized if its untouched finished images are
    copies, or if it was seen to copy a training picture. It is also memorized if it is on the run's
    list at a false discovery rate, whatever its images are: a template memory copies only a part of
    a picture.
    """
    if caption.detected is None:
        return None
    if not caption.detected.memorized:
        return "not memorized"
    proven = caption.listed or caption.detected.copies or gives_copies(caption)
    return "memorized" if proven else "suspected"


def unseen(caption: Caption) -> bool:
    """Whether a caption is suspected because none of its finished images was looked at.

    False if its images were looked at and are no copies.
    """
    return state(caption) == "suspected" and gives_copies(caption) is None


def treated_as_memory(caption: Caption) -> bool:
    """Whether an audit treats a caption as a memory: it is one, or none of its images was looked
    at.

    Neurons found for such captions are switched off.
    """
    return state(caption) == "memorized" or unseen(caption)


def standing(caption: Caption) -> str:
    """The standing of a caption, one of STANDINGS, from the committed results of an audit.

    The neurons of all captions off together decide, as they are exported, if that was looked at
    (`verification_of`). A memory that none of its own neurons reach is gone if the neurons of others remove
    it.

    Gone means: untouched images of most seeds are copies, and none is with the neurons off.
    Finished images decide, because a noise difference looks at one step of many. If no image was a
    copy and the caption is on the list, noise differences decide: of the fresh seeds that
    replicated, none is more like itself before than the threshold. A caption without a seen copy is
    suspected, whatever became of its score. It is "back" if neurons are off for it and its noise
    differences did not change.

    >>> under = {"memorized": False, "score": 0.1, "tau": 0.4}
    >>> standing(Caption(1, "a cat", 1, None, None, {"detect": under}, {}, 0.1))
    'not memorized'
    """
    is_ = state(caption)
    found = caption.localized
    if failures(caption):
        return "failed"
    if is_ == "suspected":
        is_back = len(switched_off(caption)) and _checked(caption) == "back"
        return "back" if is_back else "suspected"
    if is_ != "memorized":
        return is_ or "open"
    if found is None:
        return "not localized"
    if not found.neurons:
        return "no neurons"
    if not found.reached:
        whole = caption.together or Verified()
        if copies(whole, "before") and not copies(whole, "after"):
            return "gone"
        return "reduced" if _reduced(found, verification_of(caption)) else "out of reach"
    return _checked(caption)


def verification_of(caption: Caption) -> Verified | None:
    """The verification that a caption is judged by: with the neurons of all captions off if that
    was looked at, else with its own.
    """
    return caption.together or caption.verified


def in_cleaned_model(caption: Caption) -> Verified | None:
    """What a caption gives in the cleaned model, beside the untouched one.

    If nothing is off for it there, nor was for others when it was judged, its images are those of
    the untouched model.
    """
    checked = verification_of(caption)
    if checked is None or len(switched_off(caption)) or caption.together is not None:
        return checked
    return replace(
        checked, copies_after=checked.copies_before, sscd_orig_after=checked.sscd_orig_before
    )


def whose_neurons(caption: Caption) -> str | None:
    """Whose neurons were off when a caption was judged: those of all captions, as exported, or its
    own.

    None if it was not judged.
    """
    if verification_of(caption) is None:
        return None
    return "its own neurons" if caption.together is None else "the neurons of all captions"


def _checked(caption: Caption) -> str:
    """The standing of neurons, checked on fresh seeds or not."""
    checked = verification_of(caption)
    if checked is None or caption.detected is None:
        return "not verified"
    if copies(checked, "before"):
        return "copies" if copies(checked, "after") else "gone"
    if checked.same_seed is None:
        return "not replicated"
    return "back" if checked.same_seed > caption.detected.tau else "gone"


def _reduced(found: Localized, checked: Verified | None) -> bool:
    """Whether neurons that do not remove a memory leave fewer copies of it.

    Finished images decide. If none was made, or none was a copy before, the pictures that the
    search tried last decide: all must be less like a copy than SAME.
    """
    if checked is not None and copies(checked, "before"):
        before, after = checked.copies_before, checked.copies_after
        fewer = before is not None and after is not None and after < before
        return fewer or copies(checked, "after") is False
    left = found.points[-1].left if found.points else 1.0
    return left < SAME <= (found.copy_before or 0.0)


def standing_text(caption: Caption) -> str:
    """The standing of a caption as text; for a suspected one with its p-value."""
    word = standing(caption)
    if state(caption) != "suspected":
        return word
    doubt = "suspected" if caption.p is None else f"suspected (p = {caption.p:.2g})"
    return doubt if word == "suspected" else f"{word}, {doubt}"


def meaning(caption: Caption) -> str:
    """The meaning of a caption's standing, as a sentence without its subject."""
    word = standing(caption)
    if removed_by_others(caption):
        return f"{STANDINGS[word]}, by the neurons of other captions; it has no set of its own"
    if word != "suspected":
        return STANDINGS[word]
    if not unseen(caption):
        return (
            "its score reaches tau, but its untouched images are no copies: nothing is switched off"
            " for it"
        )
    off = "; its neurons are switched off all the same" if len(switched_off(caption)) else ""
    return f"its score reaches tau, and none of its images was looked at{off}"


def removed_by_others(caption: Caption) -> bool:
    """Whether the memory of a caption is gone although nothing is switched off for it alone."""
    return standing(caption) == "gone" and not switched_off(caption)


def image_name(caption: Caption, when: str, stage: str | None = None) -> str:
    """The file name, without its number, of a caption's images "before" or "after".

    Quick images, made in few steps, have other names. `stage`: the verification that made them, by
    default the one that the caption is judged by. `folder_of` gives the folder.

    >>> image_name(Caption(1, "a cat", 1, None, None, {"verify": {"steps": 3}}, {}, 0.1), "after")
    'quick-after'
    """
    checked: Verified | None = (
        verification_of(caption) if stage is None else caption.typed_result(stage)
    )
    quick = checked is not None and checked.steps is not None
    return f"quick-{when}" if quick else when


def folder_of(caption: Caption) -> str:
    """The folder in a run of the pictures of a caption's `verification_of` verification.

    It contains `images`, `noise` and `sheets`. It is the run itself, or a folder of the cleaned
    model.

    >>> folder_of(Caption(1, "a cat", 1, None, None, {}, {}, 0.1))
    '.'
    """
    return "." if caption.together is None else cleaned_folder(caption.unions[-1])


def cleaned_folder(digest: str) -> str:
    """The folder of pictures with a set of neurons off, by the digest of the set."""
    return f"cleaned/{digest}"


def failures(caption: Caption) -> dict[str, str]:
    """Stages of the audit that failed on a caption, with the reason.

    A mitigation, a study, or a set of neurons other than the exported one does not count: its
    failure says nothing about the caption.
    """
    stages = (*STAGES, *(f"union:{digest}" for digest in caption.unions[-1:]))
    return {stage: reason for stage, reason in caption.failed.items() if stage in stages}


def neurons_of(caption: Caption) -> NeuronSet:
    """The neurons that the search found for a caption alone."""
    return EMPTY if caption.localized is None else caption.localized.neurons


def joined_neurons(caption: Caption) -> NeuronSet:
    """The neurons that joined those of all captions because a copy of this one had come back."""
    return NeuronSet.of(n for found in caption.further if found.reached for n in found.neurons)


def with_joined(caption: Caption) -> NeuronSet:
    """The neurons found for a caption, and those that joined them."""
    return neurons_of(caption) | joined_neurons(caption)


def z_scores(caption: Caption) -> dict[str, float]:
    """ "layer:index" -> z-score, of the neurons of a caption that have a known one."""
    return {} if caption.localized is None else caption.localized.z


def evaluations_of(caption: Caption) -> int:
    """U-Net sample evaluations spent on detection and localization of a caption."""
    parts = (caption.detected, caption.localized)
    return sum(part.evaluations for part in parts if part is not None)


def points_of(caption: Caption) -> tuple[Point, ...]:
    """The price list of a caption's memory: the sets that its search tried, by size.

    Empty if it had no such search.
    """
    return () if caption.localized is None else caption.localized.points


def prefix_of(caption: Caption, neurons: int) -> tuple[NeuronSet, Point]:
    """The set of a caption's price list that has a number of neurons.

    Raises InputError for a number that was not tried.
    """
    order = () if caption.localized is None else caption.localized.order
    return set_of_size(order, points_of(caption), neurons)


def falls(caption: Caption) -> bool:
    """Whether the search found neurons that make the memory of a caption fall to tau."""
    return caption.localized is not None and caption.localized.reached and bool(neurons_of(caption))


def dear(caption: Caption) -> bool:
    """Whether there is a choice to make: no tried set removes the memory, or the last one changes
    ordinary captions by more than .05.
    """
    found = caption.localized
    if found is None or not found.points:
        return False
    return not found.reached or (found.points[-1].change or 0.0) > DEAR


def switched_off(caption: Caption) -> NeuronSet:
    """The neurons that are off in the cleaned model because of a caption.

    They are those found for it and those that joined them, if it is memorized and its memory falls
    to tau. A caption without any looked-at image is treated as memorized. There are none for a
    caption whose images are no copies, or whose memory is out of reach: they would change the model
    and remove no memory.
    """
    return with_joined(caption) if falls(caption) and treated_as_memory(caption) else EMPTY


def worst_first(captions: Iterable[Caption]) -> list[Caption]:
    """Captions in the order of display: memories that are not gone come first."""
    return sorted(captions, key=lambda caption: list(WORDS).index(standing(caption)))


def all_neurons(captions: Iterable[Caption]) -> NeuronSet:
    """The neurons that are off in the cleaned model for these captions; shared ones count once."""
    return NeuronSet.of(n for c in captions for n in switched_off(c))
