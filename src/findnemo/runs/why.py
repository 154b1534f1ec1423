"""Why a caption is called memorized, suspected or neither: the measurements behind its state."""

from __future__ import annotations

from findnemo.runs.results import Detected, Verified
from findnemo.runs.standing import gives_copies, state
from findnemo.runs.store import Caption
from findnemo.runs.wording import count


def why(caption: Caption) -> str:
    """The measurements that decide the state of a caption, in one or two sentences; empty before
    detection.

    >>> under = {"memorized": False, "score": 0.1, "tau": 0.4}
    >>> why(Caption(1, "a cat", 1, None, None, {"detect": under}, {}, 0.1))
    'Its score, 0.100, is under tau, 0.400.'
    """
    if caption.detected is None or caption.score is None:
        return ""
    said = _of_score(caption.detected, caption.score, caption)
    if state(caption) == "not memorized":
        return said
    return f"{said} {_of_images(caption.detected, caption)}"


def _of_score(detected: Detected, score: float, caption: Caption) -> str:
    """What the noise differences of the seeds say."""
    seeds = ""
    if caption.localized is None and detected.samples is not None:
        seeds = f" over {count(detected.samples, 'seed')}"
    if score < detected.tau:
        return f"Its score{seeds}, {score:.3f}, is under tau, {detected.tau:.3f}."
    rare = "" if caption.p is None else f"; {_share(caption.p)} of ordinary captions score as high"
    return f"Its score{seeds}, {score:.3f}, reaches tau, {detected.tau:.3f}{rare}."


def _of_images(detected: Detected, caption: Caption) -> str:
    """What the finished images of the untouched model say, or the list that a caption is on."""
    checked = caption.verified
    if detected.copies:
        return "At least one image of the copy test is a copy of a training picture."
    if checked is not None and gives_copies(caption) is not None:
        return _of_copies(checked)
    if caption.listed:
        return "It is on the run's list at a false discovery rate."
    return "None of its finished images was looked at."


def _of_copies(checked: Verified) -> str:
    if checked.copies_before is None:
        return (
            "Its images without the edit resemble the training picture:"
            f" similarity {checked.sscd_orig_before:.3f} in the median."
        )
    most = checked.largest_before
    up_to = "" if most is None else f" (similarity up to {most:.3f})"
    some = "None" if not checked.copies_before else f"{100 * checked.copies_before:.0f} %"
    copy = "copies" if checked.copies_before == 0 else "copy"
    return (
        f"{some} of its images without the edit {copy} the image of another seed or the training"
        f" picture{up_to}."
    )


def _share(p: float) -> str:
    """A share of captions, in percent with two digits that count.

    >>> _share(0.00166), _share(0.033)
    ('at most 0.17 %', 'at most 3.3 %')
    """
    return f"at most {100 * p:.2g} %"
