"""Models, and the passes that were made."""

from __future__ import annotations

import pytest
from _replication import model_with_text

from findnemo import Model
from findnemo.passes import sharing as module


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request) -> Model:
    return model_with_text(request.param)


@pytest.fixture
def passes(monkeypatch):
    """The number of rows of each pass."""
    seen = []
    real = module.one_pass
    monkeypatch.setattr(
        module, "one_pass", lambda model, one: seen.append(len(one)) or real(model, one)
    )
    return seen
