"""How many parameters public functions have."""

from __future__ import annotations

import inspect

import pytest

from findnemo import tasks


@pytest.mark.parametrize("name", tasks.__all__)
def test_a_task_has_eight_parameters_at_most(name):
    task = getattr(tasks, name)
    if inspect.isfunction(task):
        assert len(inspect.signature(task).parameters) <= 8
        assert task.__doc__
