"""Agreement of sets by hand."""

from __future__ import annotations

import pytest

from findnemo import NeuronSet
from findnemo.errors import InputError
from findnemo.localization import frequency, iou, pairwise_iou

A, B, C = (NeuronSet({"a": indices}) for indices in ([0, 1], [1, 2], [1]))


def test_agreement_by_hand():
    assert (iou(A, B), iou(A, C), iou(A, A)) == (pytest.approx(1 / 3), 0.5, 1.0)
    assert (iou(A, NeuronSet()), iou(NeuronSet(), NeuronSet())) == (0.0, 1.0)
    assert pairwise_iou([A, B, C]) == pytest.approx([1 / 3, 0.5, 0.5])
    assert frequency([A, B, C]) == pytest.approx({("a", 1): 1.0, ("a", 0): 1 / 3, ("a", 2): 1 / 3})


def test_no_sets_have_no_frequency():
    with pytest.raises(InputError, match="no sets"):
        frequency([])
