"""What the terminal offers besides the commands: completion, `--debug`, help with examples; and
the command demo.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from _command import Result, cli
from _place import COMMANDS

import findnemo
from findnemo.runs import Run


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join(
        filter(None, [str(Path(findnemo.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'findnemo'; from findnemo.cli import main; main()",
        *arguments,
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


# completion


def test_completion_for_bash_is_printed_and_is_a_script():
    shown = python("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.returncode == 0, shown.stderr
    assert "complete -o default -F _findnemo_completion findnemo" in shown.stdout
    assert subprocess.run(["bash", "-n"], input=shown.stdout, text=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "offered"), [("findnemo insp", "inspect"), ("findnemo audit --descr", "--descriptor")]
)
def test_completion_completes_commands_and_options(words, offered):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert python(_FINDNEMO_COMPLETE="complete_bash", **asked).stdout.split() == [offered]


# errors


def broken(monkeypatch, error: Exception) -> None:
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(Run, "open", fails)


UNEXPECTED = KeyError("no [red]such\x1b[2J key")


def test_an_unexpected_error_is_one_line_that_names_the_way(monkeypatch):
    broken(monkeypatch, UNEXPECTED)
    result = cli("inspect", "run")
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert result.err.startswith("error: KeyError: ")
    assert "findnemo --debug" in result.err
    assert "https://github.com/findnemo/findnemo/issues" in result.err
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err


@pytest.mark.parametrize(
    ("error", "status"),
    [(UNEXPECTED, 1), (findnemo.FindnemoError("known"), 2), (PermissionError(13, "denied"), 2)],
)
def test_debug_shows_where_any_error_comes_from(monkeypatch, error, status):
    broken(monkeypatch, error)
    quiet = cli("inspect", "run")
    loud = cli("--debug", "inspect", "run")
    assert quiet.status == loud.status == status
    assert "Traceback" not in quiet.err
    assert loud.err.startswith("Traceback (most recent call last):")
    assert "in inspect" in loud.err
    assert "\x1b" not in loud.err
    assert loud.err.endswith(
        quiet.err
    )  # the line that says what is wrong is the last one, in either case


def test_debug_of_one_call_is_not_kept_for_the_next(monkeypatch):
    broken(monkeypatch, UNEXPECTED)
    assert "Traceback" in cli("--debug", "inspect", "run").err
    assert "Traceback" not in cli("inspect", "run").err


# examples


def examples(command: str) -> list[str]:
    return re.findall(r"Example: `(findnemo [^`]+)`", COMMANDS[command].help)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_help_are_calls_that_the_command_understands(command):
    """Every option of an example exists, and its arguments are as many as the command takes."""
    assert examples(command)
    for example in examples(command):
        name, *arguments = shlex.split(example)[1:]
        assert name == command
        with COMMANDS[name].make_context(name, list(arguments)) as context:
            assert context.params


MATTER = {
    "audit": 4,
    "calibrate": 3,
    "detect": 3,
    "localize": 2,
    "export": 4,
    "inspect": 3,
    "compare": 2,
    "study": 2,
    "demo": 2,
}


@pytest.mark.parametrize("command", MATTER)
def test_commands_whose_options_matter_have_several_examples(command):
    assert len(examples(command)) >= MATTER[command]


@pytest.mark.first(6)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = cli(command, "--help")
    assert (result.status, result.err) == (0, "")
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.out).split())
    assert f"Example: findnemo {command}" in text
    assert COMMANDS[command].help.split("\n")[0] in text


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
