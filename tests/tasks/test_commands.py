"""What each command does, in Python: docs/api.md has its functions."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import typer

from findnemo.cli._app import app

COMMANDS = typer.main.get_command(app).commands
API = Path(__file__).parents[2] / "docs" / "api.md"


def functions() -> dict[str, list[str]]:
    """Command -> names of its functions, by the table of docs/api.md."""
    table = API.read_text(encoding="utf-8").split("\n| command | functions in Python |\n")[1]
    lines = [line.split("|") for line in table.split("\n\n")[0].splitlines()[1:]]
    return {
        command.strip(" `"): [name for name in told.split("`") if name.startswith("findnemo.")]
        for _, command, told, _ in lines
    }


def test_every_command_has_its_functions_in_python():
    assert set(functions()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_calls_functions_below_the_command_line(command):
    face = inspect.getsource(inspect.getmodule(inspect.unwrap(COMMANDS[command].callback)))
    for name in functions()[command]:
        module, _, last = name.rpartition(".")
        function = getattr(import_module(module), last)
        assert callable(function), name
        assert function.__doc__, name
        assert not function.__module__.startswith("findnemo.cli"), name
        assert f"{last}(" in face or f"import {last} as" in face, name
