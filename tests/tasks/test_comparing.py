"""Comparisons of mitigations and of detectors, and studies, in Python."""

from __future__ import annotations

import pytest

import findnemo
from findnemo import tasks


@pytest.mark.parametrize(
    ("limit", "types"), [(5, 3 * ["VM"] + 2 * ["TM"]), (24, 16 * ["VM"] + 8 * ["TM"])]
)
def test_a_limit_of_a_comparison_takes_the_types_of_memories_in_turn(
    limit, types, tmp_path, monkeypatch
):
    class AskedError(Exception):
        pass

    def perform(asked, *others):
        raise AskedError([prompt.type for prompt in asked.table])

    monkeypatch.setattr("findnemo.tasks.comparing.perform", perform)
    with pytest.raises(AskedError) as asked:
        findnemo.compare("demo", tasks.Captions(limit=limit), tmp_path / "run")
    assert asked.value.args == (types,)
