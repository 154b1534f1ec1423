"""What `--help` shows, and what it leaves to `--help-all`."""

from __future__ import annotations

import re
import shlex
from collections import Counter

import pytest
from _command import cli
from _place import COMMANDS

from findnemo.cli._help import GROUPS, PANELS, panel_of


def shown(command: str, option: str, monkeypatch) -> set[str]:
    """The options that a help at 100 columns lists."""
    monkeypatch.setenv("COLUMNS", "100")
    return set(re.findall(r"^│ [* ]*(--[a-z-]+)", cli(command, option).out, re.MULTILINE))


@pytest.mark.first(10)
@pytest.mark.parametrize("command", COMMANDS)
def test_help_all_lists_every_option_and_help_those_that_are_often_used(command, monkeypatch):
    options = {
        p.opts[0] for p in COMMANDS[command].params if p.param_type_name == "option" and p.opts
    }
    short = shown(command, "--help", monkeypatch)
    if "--help-all" not in options:
        assert short == options | {"--help"}
        return
    assert shown(command, "--help-all", monkeypatch) == options | {"--help"}
    assert short < options | {"--help"}
    required = {p.opts[0] for p in COMMANDS[command].params if p.required and p.opts[0][0] == "-"}
    assert required | {"--help", "--help-all"} <= short
    left = len(options | {"--help"}) - len(short)
    assert f"{left} more options: " in cli(command, "--help").out


def test_the_help_of_audit_fits_two_screens(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert len(cli("audit", "--help").out.splitlines()) <= 80


ARGUMENTS = {
    command: names
    for command, told in COMMANDS.items()
    if len(names := [p.metavar or p.name for p in told.params if p.param_type_name == "argument"])
    > 1
}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_the_usage_names_arguments_in_the_order_in_which_they_are_given(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    told = cli(command, "--help").out.splitlines()
    usage = next(line for line in told if "Usage:" in line).partition("[OPTIONS]")[2]
    places = [usage.lower().index(name.lower()) for name in ARGUMENTS[command]]
    assert places == sorted(places)


def test_every_command_is_in_one_group_and_every_panel_is_used():
    assert Counter(name for names in GROUPS.values() for name in names) == Counter([*COMMANDS])
    used = {
        panel_of(p.name)
        for c in COMMANDS.values()
        for p in c.params
        if p.param_type_name == "option"
    }
    assert used == {*PANELS}


@pytest.mark.parametrize(
    ("arguments", "meant"), [(["audt"], "audit"), (["audit", "m", "--promts", "x"], "--prompts")]
)
def test_a_mistyped_word_is_answered_with_the_right_one(arguments, meant):
    answer = cli(*arguments)
    assert answer.status == 2
    assert meant in answer.err


@pytest.mark.first(6)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = cli(command, "--help")
    assert (result.status, result.err) == (0, "")
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.out).split())
    assert f"Example: findnemo {command}" in text
    assert COMMANDS[command].help.split("\n")[0] in text


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
