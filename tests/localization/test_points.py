"""Points of a price list."""

import pytest

from findnemo.errors import InputError
from findnemo.localization.points import Point, chosen
from findnemo.neurons import NeuronSet


def test_a_point_that_was_not_tried_is_refused():
    points = [Point(1, 0.9, 0.0), Point(4, 0.5, None)]
    order = [("a", 7), ("b", 1), ("a", 2), ("b", 0)]
    assert chosen(order, points, 4) == (NeuronSet({"a": [2, 7], "b": [0, 1]}), points[1])
    assert [str(point) for point in points] == [
        "likeness left 0.900, ordinary captions changed by 0.000",
        "likeness left 0.500",
    ]
    with pytest.raises(InputError, match="a set of 3 neurons was not tried; those that were: 1, 4"):
        chosen(order, points, 3)
    with pytest.raises(InputError, match="the search left no list of sets"):
        chosen((), (), 1)
