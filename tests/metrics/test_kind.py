"""VM or TM: the best of the generations decides."""

import math

import pytest
import torch
from PIL import Image

from findnemo import demo
from findnemo.errors import InputError
from findnemo.metrics import classify, memory_type


@pytest.mark.parametrize(
    ("similarities", "kind"),
    [
        ([0.1] * 9 + [0.71], "VM"),
        ([0.7] * 10, "TM"),
        ([-0.2], "TM"),
        (torch.tensor([0.9, 0.1]), "VM"),
        ((1.0,), "VM"),
    ],
)
def test_one_image_over_the_bound_makes_a_memory_verbatim(similarities, kind):
    assert memory_type(similarities) == kind


@pytest.mark.parametrize("similarities", [[], [0.2, math.nan], [math.nan, 0.9]])
def test_what_tells_no_type_is_refused(similarities):
    with pytest.raises(InputError, match="tell no type"):
        memory_type(similarities)


def test_generations_are_compared_with_the_original():
    one, other = (demo.training_image(p.text) for p in demo.memorized()[:2])
    descriptor = demo.judges().descriptor
    grey = Image.new("RGB", (64, 64), "grey")
    assert classify(descriptor, [grey, other, one], one) == "VM"
    assert classify(descriptor, [grey, other], one) == "TM"
    with pytest.raises(InputError, match="no images to compare"):
        classify(descriptor, [], one)
