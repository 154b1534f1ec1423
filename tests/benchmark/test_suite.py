"""A suite is trained and scored; what is there is not made again."""

from __future__ import annotations

import pytest
from _tiny_suite import tiny_member

from findnemo import benchmark
from findnemo.benchmark.members import open_suite


def test_a_model_that_is_there_is_not_trained_again(member, tmp_path):
    place = tiny_member(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}
    benchmark.train(tmp_path, seeds=[7], report=lambda line: pytest.fail(line))
    assert {p: p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()} == before
    assert open_suite(tmp_path) == [place]
