"""The app is opened and served as the command does."""

from __future__ import annotations

import pytest
import torch

from findnemo import tasks
from findnemo.errors import InputError


@pytest.fixture
def served(monkeypatch):
    """What the app was launched with, and the threads that PyTorch then had."""
    pytest.importorskip("gradio", reason="the app needs gradio: pip install 'findnemo[app]'")
    seen = []
    monkeypatch.setattr(
        "findnemo.app.launch", lambda *given: seen.append((given, torch.get_num_threads()))
    )
    return seen


def test_the_app_is_launched_with_the_options_of_a_source(finished_run, served):
    told = []
    listener = tasks.Listener(warn=told.append)
    given = (tasks.Source(dtype="float16"), None, "0.0.0.0", 8000, tasks.Workers(threads=2))
    tasks.launch(finished_run, *given, listener)
    (((place, _, host, port, model, _), threads),) = served
    assert (place, host, port, threads) == (finished_run, "0.0.0.0", 8000, 2)
    assert model.dtype == torch.float16
    assert told == ["everyone who can reach 0.0.0.0 can use this app, its model and its exports"]
    with pytest.raises(InputError, match="--model has no run to apply to"):
        tasks.launch("demo", tasks.Source("demo"))


def test_a_stop_while_the_model_loads_serves_nothing(finished_run, served):
    tasks.launch(finished_run, listener=tasks.Listener(stop=lambda: True))
    assert served == []
