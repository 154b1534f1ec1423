"""A loud model and neurons of it, for edits of whatever stands in the place of a weight."""

import pytest
from _tiny_files import as_model, loud, tiny_family

from findnemo import NeuronSet
from findnemo.models import Model


@pytest.fixture
def model() -> Model:
    return as_model(loud(tiny_family("sd1"))[0])


@pytest.fixture
def neurons(model) -> NeuronSet:
    return loud(tiny_family("sd1"))[1]
