"""Points of a price list: what a set costs ordinary captions, and the sets of a list."""

from dataclasses import replace

import pytest

from findnemo import demo
from findnemo.errors import InputError
from findnemo.localization.points import CAPTIONS, Point, priced, set_of_size
from findnemo.neurons import NeuronSet
from findnemo.passes import spending

ONE = "Brantwood Roasters first cup, a large brown ring"  # held by one planted neuron


def test_a_point_that_was_not_tried_is_refused():
    points = [Point(1, 0.9, 0.0), Point(4, 0.5, None)]
    order = [("a", 7), ("b", 1), ("a", 2), ("b", 0)]
    assert set_of_size(order, points, 4) == (NeuronSet({"a": [2, 7], "b": [0, 1]}), points[1])
    assert [str(point) for point in points] == [
        "likeness left 0.900, ordinary captions changed by 0.000",
        "likeness left 0.500",
    ]
    with pytest.raises(InputError, match="a set of 3 neurons was not tried; those that were: 1, 4"):
        set_of_size(order, points, 3)
    with pytest.raises(InputError, match="the search left no list of sets"):
        set_of_size((), (), 1)


def test_prices_are_asked_of_ordinary_captions_once(demo_model):
    calibration = demo.calibration()
    order = list(demo.planted()[ONE])
    with spending() as spent:
        points = priced(demo_model, calibration, ONE, order, [(1, 0.2)])
    assert spent.evaluations == CAPTIONS // 2  # what is untouched was passed before
    assert priced(demo_model, calibration, ONE, order, [(1, 0.2)]) == points
    for ordinary in ((), (ONE,)):
        without = replace(calibration, ordinary=ordinary)
        with spending() as spent:
            assert priced(demo_model, without, ONE, order, [(1, 0.2)]) == (Point(1, 0.2),)
        assert spent.evaluations == 0
