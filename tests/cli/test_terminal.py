"""What the terminal offers besides the commands: completion and `--debug`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _command import cli

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
