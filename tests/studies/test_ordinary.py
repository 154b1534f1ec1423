"""Captions that a study may take as not memorized: as they come, none of those of tau."""

from __future__ import annotations

from dataclasses import replace

from findnemo.calibration import prompts_digest
from findnemo.runs.ordinary import ordinary
from findnemo.studies import not_memorized, under_tau


def test_ordinary_captions_are_those_of_that_kind_whatever_detection_says(low):
    mine, order, _ = low
    assert [c.results["detect"]["memorized"] for c in mine.run.captions()] == [
        True,
        True,
        False,
        False,
    ]
    assert ordinary(mine.run) == [
        order[0],
        order[1],
        order[3],
    ]  # the memory that was missed is not among them
    assert not_memorized(mine.run, ["a new one", order[2]], mine.calibration) == (
        [order[0], order[1], order[3], "a new one"],
        1,
    )


def test_hold_out_captions_are_never_taken(low):
    mine, order, _ = low
    held = ["hold out a", "hold out b", "hold out c"]
    calibration = mine.calibration
    assert calibration.prompts == prompts_digest(held)
    assert not_memorized(mine.run, [*held, "more"], calibration) == (
        [order[0], order[1], order[3], "more"],
        3,
    )
    assert not_memorized(mine.run, ["x", "y"], calibration, {"y"}) == (
        [order[0], order[1], order[3], "x"],
        1,
    )
    assert (
        not_memorized(mine.run, held[:2], calibration)[1] == 0
    )  # other captions than those of the calibration


def test_captions_under_tau_are_those_that_detection_looked_at_and_no_table_calls_memories(low):
    """Two of the four are over tau, one has the type of a memory, and one was never scored."""
    mine, order, _ = low
    (quiet,) = under_tau(mine.run.captions())
    assert quiet == order[3]
    never_scored = [replace(c, results={}) for c in mine.run.captions()]
    assert under_tau(never_scored) == []
