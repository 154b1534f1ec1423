"""What belongs to no single command, and the command `demo`."""

from __future__ import annotations

import pytest
from _command import Result, cli
from _place import COMMANDS

import findnemo


def test_help_lists_every_command_and_the_version_is_printed():
    result = cli("-h")
    assert result.status == 0
    assert all(f" {command} " in result.out for command in COMMANDS)
    assert cli("--version") == Result(0, f"findnemo {findnemo.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["audit"], ["audit", "model", "--out"], ["detect", "--nonsense"], ["verify"]],
)
def test_bad_usage_is_status_2(arguments):
    result = cli(*arguments)
    assert (result.status, result.out) == (2, "")
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_the_demo_goes_by_the_calibration_that_ships_and_is_held_against_its_truth(tmp_path):
    from findnemo import demo

    result = cli("demo", "--limit", 1, "--out", tmp_path / "run")
    assert result.status == 0
    assert "Found 1 of 1 planted memories, no false alarm." in result.out
    own = findnemo.Calibration.load(tmp_path / "run" / "calibration")
    assert own.same(demo.calibration("demo", "findnemo"))
    assert "Found 1 of 1 planted memories" in (tmp_path / "run" / "report.html").read_text()


def test_planted_neurons_are_compared_of_the_model_that_has_some():
    result = cli("demo", "--check", "--natural")
    assert (result.status, result.out) == (2, "")
    assert "'demo-natural' has none: leave one of the two out" in " ".join(result.err.split())
