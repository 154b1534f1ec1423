"""What rooms import of each other is what the docstrings of their packages say (docs/layout.md).

import-linter holds the levels; this holds the doors.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from importlinter.api import read_configuration

import findnemo

HERE = Path(findnemo.__file__).parent
ROOMS = sorted(door.parent.name for door in HERE.glob("*/__init__.py"))
LOOSE = {file.stem for file in HERE.glob("*.py")}
# how a docstring says that modules may be entered, and that anything below may be imported
MODULES = "as modules|the modules here|the functions here|the modules without an underscore"
BELOW = "lies under"
NAMES = {"statistics": "stats", "exports": "export"}  # rooms in words


def levels() -> dict[str, int]:
    """Room or loose module -> its level in the contract of import-linter, the lowest 1."""
    settings = read_configuration(str(HERE.parents[1] / "pyproject.toml"))
    (contract,) = settings["contracts_options"]
    rows = [re.split(r" [|:] ", row) for row in reversed(contract["layers"])]
    return {room: level for level, row in enumerate(rows, 1) for room in row}


LEVELS = levels()


@cache
def said(room: str) -> tuple[str, str]:
    """What a room's docstring says after "May be imported" and after "May import"."""
    text = " ".join(
        (ast.get_docstring(ast.parse((HERE / room / "__init__.py").read_text())) or "").split()
    )
    found = re.search(r"May be imported: (.*?)\. May import: (.*?)(?:\. |\.?$)", text)
    assert found is not None, room
    return found[1], found[2]


@cache
def exported(room: str) -> set[str]:
    """The names in a room's `__init__`, whatever modules are called like them."""
    door = HERE / room / "__init__.py"
    tree = ast.parse(door.read_text(encoding="utf-8") if door.is_file() else "")
    names = (node.names for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {name.asname or name.name for some in names for name in some}


@cache
def imports() -> list[tuple[str, str, str]]:
    """(module that imports, room, module of it), of imports between rooms; type checkers' too."""
    return [
        (".".join(parts), target, name)
        for file in HERE.rglob("*.py")
        for parts in [file.relative_to(HERE).with_suffix("").parts]
        for target, name in _imported(ast.parse(file.read_text(encoding="utf-8")))
        if target != parts[0]
    ]


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("findnemo")):
            continue
        _, *path = node.module.split(".")
        for name in node.names:
            room, *inside = [*path, name.name]
            is_past = bool(inside) and not (not path[1:] and inside[0] in exported(room))
            yield room, inside[0] if is_past and (HERE / room / f"{inside[0]}.py").is_file() else ""


def test_no_room_enters_another_by_a_private_module():
    private = [row for row in imports() if row[2].startswith("_")]
    assert private == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_entered_as_its_docstring_says(room):
    doors, _ = said(room)
    past = [row for row in imports() if row[1] == room and row[2]]
    assert re.search(MODULES, doors) or past == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_its_docstring_says(room):
    _, told = said(room)
    if told.startswith("everything"):
        return
    used = {target for module, target, _ in imports() if module.partition(".")[0] == room}
    named = {NAMES.get(word, word) for word in re.findall(r"\w+", told)} & {*ROOMS, *LOOSE}
    top = max(LEVELS[one] for one in named)
    below = {one for one, level in LEVELS.items() if level < top} if BELOW in told else set()
    assert used - named - below - {"_version"} == set()


MODULES_HERE = sorted(file for file in HERE.rglob("*.py") if not file.stem.startswith("__"))


@pytest.mark.parametrize("module", MODULES_HERE, ids=lambda file: str(file.relative_to(HERE)))
def test_a_module_has_its_tests_under_its_name(module):
    """`tests/ROOM/test_NAME.py`; for a private module they go through the door of its room."""
    place = Path(__file__).parent / module.parent.relative_to(HERE)
    tests = place / f"test_{module.stem.lstrip('_')}.py"
    assert tests.is_file(), f"no tests under the name of the module: {tests}"
    nodes = ast.walk(ast.parse(tests.read_text(encoding="utf-8")))
    assert any(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in nodes
    )
