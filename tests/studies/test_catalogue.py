"""The list of studies: the paper's tables and figures, and what a run has for each."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from findnemo.errors import InputError
from findnemo.studies import catalogue, make


def test_the_list_says_what_a_run_has(bench, work):
    assert bench.stock == {
        "neurons": 3,
        "neurons off": 1,
        "types": 3,
        "others": 3,
        "ordinary": 3,
        "hold-out scores": 3,
        "training images": 3,
        "reference pictures": 0,
        "descriptor": 1,
        "CLIP": 1,
    }
    states = {row[0]: row[-1] for row in catalogue(bench.stock).rows}
    assert states["fig4"] == "ready"
    assert states["table1"] == "ready"
    assert states["fig5a"] == "ready, without reference pictures"


def test_what_a_run_lacks_is_listed_and_refused_alike(bench):
    poor = replace(bench, unrelated=(), under=())
    states = {row[0]: row[-1] for row in catalogue(poor.stock).rows}
    assert states["table3"] == "lacks others"
    assert states["fig13"] == "ready, without others"
    with pytest.raises(InputError, match="needs captions that are not memorized, 2 or more: there"):
        make("table3", poor)


def test_imported_statistics_have_no_scores(bench, work):
    made = replace(work.calibration, trajectories=torch.empty(0, 3))
    bare = replace(bench, work=replace(work, calibration=made))
    states = {row[0]: row[-1] for row in catalogue(bare.stock).rows}
    assert states["fig2a"] == "ready, without hold-out scores"
