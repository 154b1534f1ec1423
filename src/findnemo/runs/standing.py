"""How a caption stands after an audit, in one word."""

from __future__ import annotations

from findnemo.runs.audit import STAGES
from findnemo.runs.store import Caption

STANDINGS = {  # worst first
    "failed": "a step failed on it",
    "out of reach": "not even all value neurons bring its memory down to tau; nothing is switched off for it",
    "back": "on fresh seeds its noise differences still resemble those before",
    "copies": "its finished images still hold copies",
    "not verified": "its neurons were found, but not checked on fresh seeds",
    "not localized": "memorized, its neurons were not sought",
    "no neurons": "over tau in detection, but no seed replicated in the search",
    "gone": "its memory is gone on fresh seeds",
    "open": "not looked at yet",
    "not memorized": "its score is under tau",
}


def standing(caption: Caption, tau: float) -> str:
    """One of STANDINGS: what the committed results of an audit say of a caption.

    Gone: with the neurons off no noise difference of a fresh seed is more like itself before than `tau`, and where untouched images of
    most seeds are copies of each other, none with the neurons off is one.

    >>> standing(Caption(1, "a cat", 1, None, None, {"detect": {"memorized": False}}, {}, 0.1), 0.4)
    'not memorized'
    """
    found, checked = caption.results.get("localize"), caption.results.get("verify")
    if any(stage in caption.failed for stage in STAGES):
        return "failed"
    if "detect" not in caption.results:
        return "open"
    if not caption.results["detect"]["memorized"]:
        return "not memorized"
    if found is None:
        return "not localized"
    if not any(found["neurons"].values()):
        return "no neurons"
    if not found["reached"]:
        return "out of reach"
    if checked is None:
        return "not verified"
    if checked["same_seed"] > tau:
        return "back"
    copied = checked.get("copies_before", 0) >= 0.5 and checked["copies_after"] > 0
    return "copies" if copied else "gone"
