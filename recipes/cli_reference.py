"""Writes docs/cli.md: every command with its help, arguments, options and examples, from
the commands themselves.

    python recipes/cli_reference.py

A test makes it again and compares.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from typer.models import ArgumentInfo

from findnemo.cli._app import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# Command line

`recipes/cli_reference.py` makes this page from the help of the commands. In a terminal, use `findnemo --help` and `findnemo COMMAND --help`.

| exit status | meaning |
|---:|---|
| 0 | done |
| 1 | a caption or a check failed, or `--fail-on-memorized` or `--stop-at-copies` found one |
| 2 | the command cannot use its input: options, files, model, calibration, device, or a place to write to |
| 130 | interrupted |

An error is one line. `findnemo --debug COMMAND ...` shows its traceback. `findnemo --install-completion` sets up completion for
your shell, and `--show-completion` prints it.
"""


WORDS = {str: "TEXT", Path: "PATH", int: "INTEGER", float: "NUMBER"}


def reference() -> str:
    """The whole page."""
    parts = [HEAD, f"Before the command:\n\n{table(app.registered_callback.callback)}"]
    return "\n".join([*parts, *(section(c.callback) for c in app.registered_commands)])


def section(command: Callable[..., None]) -> str:
    """One command: what it does, how it is called, its examples, its arguments and options."""
    text, examples = split(inspect.getdoc(command) or "")
    arguments = [
        shown(p, info) for p, _, info in parameters(command) if isinstance(info, ArgumentInfo)
    ]
    usage = " ".join(["findnemo", command.__name__, *arguments, "[OPTIONS]"])
    parts = [
        f"## {command.__name__}\n",
        f"{text}\n",
        f"    {usage}\n",
        "Examples:\n",
        "\n".join(f"    {e}" for e in examples),
    ]
    return "\n".join([*parts, "", table(command)])


def split(help_text: str) -> tuple[str, list[str]]:
    """A help without its examples, and the examples."""
    pattern = r"Example: `([^`]+)`"
    examples = [" ".join(example.split()) for example in re.findall(pattern, help_text)]
    return " ".join(re.sub(pattern, "", help_text).split()), examples


def parameters(command: Callable[..., None]) -> list[tuple[inspect.Parameter, Any, Any]]:
    """Parameter, its type, and what Typer is told of it; arguments first, then what is required."""
    made = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if get_args(parameter.annotation):
            kind, info = get_args(parameter.annotation)
            made.append(
                (
                    parameter,
                    (
                        next((t for t in get_args(kind) if t is not NoneType), kind)
                        if named(kind)
                        else kind
                    ),
                    info,
                )
            )
    return sorted(
        made,
        key=lambda row: (
            not isinstance(row[2], ArgumentInfo),
            row[0].default is not inspect.Parameter.empty,
        ),
    )


def named(kind: Any) -> bool:
    """Whether a type is a choice of types, such as str | None."""
    return bool(get_args(kind)) and get_origin(kind) is not list


def table(command: Callable[..., None]) -> str:
    rows = [f"| {names(*row)} | {meaning(row[0], row[2])} |" for row in parameters(command)]
    return "\n".join(["| | what it does |", "|---|---|", *rows]) + "\n"


def names(parameter: inspect.Parameter, kind: Any, info: Any) -> str:
    if isinstance(info, ArgumentInfo):
        return f"`{shown(parameter, info)}`"
    usual = f"--{parameter.name.replace('_', '-')}"
    told = [
        d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str)
    ]  # Typer keeps the first one as the default
    given = told or ([usual, f"--no-{usual[2:]}"] if kind is bool else [usual])
    joined = ", ".join(f"`{name}`" for name in given)
    return joined if kind is bool else f"{joined} {info.metavar or word(kind)}"


def word(kind: Any) -> str:
    """What an option takes."""
    return WORDS[get_args(kind)[0] if get_origin(kind) is list else kind]


def shown(parameter: inspect.Parameter, info: Any) -> str:
    name = info.metavar or parameter.name.upper()
    return name if parameter.default is inspect.Parameter.empty else f"[{name}]"


def meaning(parameter: inspect.Parameter, info: Any) -> str:
    text = " ".join((info.help or "").split()).replace("|", "\\|")
    default = parameter.default
    if default is inspect.Parameter.empty:
        return text + ("" if isinstance(info, ArgumentInfo) else " Required.")
    return text if default is None or isinstance(default, bool) else f"{text} Default: `{default}`."


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
