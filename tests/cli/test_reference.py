"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from _place import COMMANDS
from _recipes import recipe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == recipe("cli_reference").reference(), (
        "run: python recipes/cli_reference.py"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_has_every_option_that_the_parser_takes_and_no_other(command):
    """Independent of how the page is made: from the parser."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {command}\n")[1].split("\n## ")[0]
    first = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `-")]
    shown = {name for cell in first for name in cell.split("`")[1::2]}
    taken = {
        n
        for p in COMMANDS[command].params
        if p.param_type_name == "option"
        for n in (*p.opts, *p.secondary_opts)
    }
    assert shown == taken
    for parameter in COMMANDS[command].params:
        if parameter.help:
            assert " ".join(parameter.help.split()).replace("|", "\\|") in section
