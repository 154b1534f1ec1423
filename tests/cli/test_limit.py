"""A comparison of some captions: the types of memories in turn, and the same ones when it goes on."""

from __future__ import annotations

import csv

import pytest
from _command import cli
from _place import TEXTS, make_place

from findnemo.runs import Run

TYPES = ("VM", "VM", "VM", "TM", "TM", "none")


@pytest.mark.slow
def test_a_limit_takes_the_types_of_a_file_in_turn_and_the_same_captions_again(tmp_path):
    place = make_place(tmp_path)
    with (place / "typed.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("caption", "type"), *zip(TEXTS, TYPES, strict=True)])
    usual = ("compare", place / "model", "--prompts", place / "typed.csv")
    usual += ("--calibration", place / "calibration", "--images", 2, "--image-steps", 2)
    usual += ("--mitigations", "neurons", "--out", place / "run")

    def compared(limit: int) -> list[int]:
        done = cli(*usual, "--limit", limit)
        assert done.status == 0, done.err
        with Run.open(place / "run") as run:
            assert [c.row for c in run.captions() if "compare:neurons" in c.results] == [
                c.row for c in run.captions()
            ]
            return [c.row for c in run.captions()]

    assert compared(2) == [1, 4]
    assert compared(2) == [1, 4]
    assert sorted(compared(3)) == [1, 2, 4]
    with (place / "run" / "captions.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {(line["row"], line["mitigation"]) for line in lines} == {
        (row, name) for row in "124" for name in ("none", "neurons")
    }
