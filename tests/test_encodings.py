"""Every text file is opened with its encoding named, and every process read with one: what the
locale says changes nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    p for folder in ("src", "recipes", "measurements") for p in (ROOT / folder).rglob("*.py")
)
BINARY = {"Image", "Run", "os", "tarfile", "self"}  # what has an `open` of another kind


def unnamed(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that open text, or read what a process says, without naming its encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = (
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        )
        given = {word.arg: word.value for word in call.keywords}
        if "encoding" in given or "b" in "".join(mode(call, given, name)):
            continue
        of = call.func.value if isinstance(call.func, ast.Attribute) else None
        foreign = name == "open" and isinstance(of, ast.Name) and of.id in BINARY
        text_of_process = any(
            isinstance(given.get(w), ast.Constant) and given[w].value
            for w in ("text", "universal_newlines")
        )
        opens = name in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile") and not foreign
        reads_or_writes = name in ("read_text", "write_text") and len(call.args) < (
            1 if name == "read_text" else 2
        )
        if opens or reads_or_writes or text_of_process:
            yield call.lineno


def mode(call: ast.Call, given: dict, name: str) -> Iterator[str]:
    """What could be the mode of a file: short texts among the arguments."""
    values = [*call.args, *([given["mode"]] if "mode" in given else [])]
    yield from (
        str(v.value) for v in values if isinstance(v, ast.Constant) and len(str(v.value)) < 4
    )
    if name in ("TemporaryFile", "NamedTemporaryFile") and not values:
        yield "w+b"


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_opened_as_the_locale_says(file):
    lines = list(unnamed(ast.parse(file.read_text(encoding="utf-8"))))
    source = file.read_text(encoding="utf-8").splitlines()
    assert [f"{n}: {source[n - 1].strip()}" for n in lines] == []


def test_the_check_sees_what_it_looks_for():
    bad = (
        'open("a")\nPath("a").open("w")\npath.read_text()\npath.write_text("a")\nsubprocess.run([],'
        ' text=True)\nos.fdopen(3, "a")\n'
    )
    good = (
        'open("a", "rb")\npath.open("w",'
        ' encoding="utf-8")\npath.read_text("utf-8")\nImage.open("a")\nsubprocess.run([])\n'
    )
    assert list(unnamed(ast.parse(bad))) == [1, 2, 3, 4, 5, 6]
    assert list(unnamed(ast.parse(good))) == []
