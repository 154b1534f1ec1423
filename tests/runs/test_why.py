"""The sentence that says why a caption is called memorized: all kinds of evidence, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from findnemo.runs import Caption
from findnemo.runs.why import why

OVER = {"memorized": True, "score": 0.9, "tau": 0.8, "p": 0.0123, "samples": 4}
UNDER = {"memorized": False, "score": 0.5, "tau": 0.8, "p": 1.0, "samples": 3}
SEARCHED = {"neurons": {}, "reached": False, "score_before": 0.95, "score_after": 0.1, "p": 0.002}
SCORE = "Its score over 4 seeds, 0.900, reaches tau, 0.800; at most 1.2 % of ordinary captions score as high."


def _caption(detect: dict[str, Any], listed: bool = False, **stages: Any) -> Caption:
    return Caption(1, "a cat", 1, None, None, {"detect": detect, **stages}, {}, 0.1, listed)


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        (_caption(UNDER), "Its score over 3 seeds, 0.500, is under tau, 0.800."),
        (_caption(OVER), f"{SCORE} None of its finished images was looked at."),
        (
            _caption(OVER, listed=True),
            f"{SCORE} It is on the run's list at a false discovery rate.",
        ),
        (
            _caption(OVER | {"copies": True}),
            f"{SCORE} At least one image of the copy test is a copy of a training picture.",
        ),
        (
            _caption(OVER, verify={"copies_before": 0.0, "copies_after": 0.0}),
            f"{SCORE} None of its images without the edit copies the image of another seed or the"
            " training picture.",
        ),
        (
            _caption(
                {key: OVER[key] for key in ("memorized", "score", "tau")},
                verify={"copies_before": 0.75, "copies_after": 0.0, "largest_before": 0.98},
            ),
            "Its score, 0.900, reaches tau, 0.800. 75 % of its images without the edit copy the"
            " image of another seed or the training picture (similarity up to 0.980).",
        ),
        (
            _caption(OVER, verify={"sscd_orig_before": 0.91, "sscd_orig_after": 0.1}),
            f"{SCORE} Its images without the edit resemble the training picture: similarity 0.910"
            " in the median.",
        ),
        (
            _caption(OVER, localize=SEARCHED),
            "Its score, 0.950, reaches tau, 0.800; at most 0.2 % of ordinary captions score as"
            " high. None of its finished images was looked at.",
        ),
        (Caption(1, "a cat", 1, None, None, {}, {}, 0.1), ""),
    ],
)
def test_the_sentence_names_the_evidence(caption: Caption, said: str) -> None:
    assert why(caption) == said


def test_a_picture_of_a_fine_tune_is_memorized_under_the_threshold() -> None:
    copied = _caption({"memorized": True, "score": 0.5, "tau": 0.8, "copies": True})
    assert why(copied) == (
        "Its score, 0.500, is under tau, 0.800. At least one image of the copy test is a copy of a training picture."
    )
