"""How a caption stands: each word by its own results."""

import pytest

from findnemo.runs import STANDINGS, Caption, standing, switched_off
from findnemo.runs.standing import meaning

TAU = 0.4
OVER = {"memorized": True, "score": 0.9, "tau": TAU}
FOUND = {"neurons": {"a": [1]}, "reached": True, "score_before": 0.9, "score_after": 0.2}
SEEN = {"copies": True}  # a training picture was seen to be copied
GONE = {"same_seed": 0.4, "copies_before": 1.0, "copies_after": 0.0}


def case(*payloads, **failed) -> Caption:
    return Caption(
        1,
        "a cat",
        1,
        None,
        None,
        dict(zip(("detect", "localize", "verify"), payloads, strict=False)),
        failed,
        0.0,
    )


@pytest.mark.parametrize(
    ("caption", "want"),
    [
        (case(), "open"),
        (case(OVER | {"memorized": False}), "not memorized"),
        (case(OVER), "suspected"),
        (case(OVER, FOUND), "suspected"),
        (case(OVER | SEEN), "not localized"),
        (case(OVER | SEEN, FOUND), "not verified"),
        (case(OVER | SEEN, FOUND | {"neurons": {}}), "no neurons"),
        (case(OVER | SEEN, FOUND | {"neurons": {"a": []}}), "no neurons"),
        (case(OVER | SEEN, FOUND | {"reached": False}), "out of reach"),
        (case(OVER, FOUND | {"reached": False}, GONE | {"copies_after": 1.0}), "out of reach"),
        (case(OVER, FOUND | {"reached": False}, GONE | {"copies_after": 0.5}), "reduced"),
        (case(OVER, FOUND, GONE), "gone"),
        (case(OVER, FOUND, GONE | {"same_seed": 0.41}), "gone"),  # finished images decide
        (case(OVER, FOUND, {"same_seed": 0.41}), "back"),  # no images were made
        (case(OVER, FOUND, GONE | {"copies_after": 0.25}), "copies"),
        (
            case(OVER, FOUND, GONE | {"copies_after": 0.25, "copies_before": 0.25}),
            "suspected",
        ),  # chance likeness of untouched images
        (case(OVER | SEEN, FOUND, {"same_seed": 0.1}), "gone"),  # no images were made
        (case(OVER, FOUND, {"same_seed": 0.1}), "suspected"),
        (case(OVER, FOUND, verify="NaN"), "failed"),
        (case(OVER, FOUND, GONE, **{"compare:wanda": "NaN"}), "gone"),
    ],
)
def test_standing(caption, want):
    assert standing(caption) == want
    assert want in STANDINGS


@pytest.mark.parametrize("own", [True, False])
def test_a_memory_that_the_neurons_of_other_captions_remove_is_said_to_be_so(own):
    results = {
        "detect": OVER | SEEN,
        "localize": FOUND | {"reached": own},
        "verify": GONE | {"copies_after": 0.0 if own else 1.0},
        "union:ab": GONE | {"neurons": 9},
    }
    caption = Caption(1, "a cat", 1, None, None, results, {}, 0.0, unions=("ab",))
    assert standing(caption) == "gone"
    assert bool(switched_off(caption)) == own
    assert ("by the neurons of other captions" in meaning(caption)) != own
