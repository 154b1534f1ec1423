"""The common parts of the commands: consoles, progress, options outside groups, and how errors
reach the user.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from findnemo.cli._progress import Watch, watching
from findnemo.cli._streams import displayable, output_encoding
from findnemo.files.secrets import without_secrets
from findnemo.runtime.quiet import quiet_libraries

if TYPE_CHECKING:
    from findnemo.tasks import Listener

OutOpt = Annotated[Path, typer.Option("--out", "-o", help="Directory to write to.")]
RunArg = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
JsonOpt = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output.")
]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no tables.")]


@dataclass
class Global:
    """Options before the command: the one value that the entry point and the parser share."""

    debug: bool = False


EDGELESS: dict[str, Any] = {"show_edge": False, "pad_edge": False}  # style of rich tables
LOOSE: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 1, 0, 0)}
PLAIN = bool(os.environ.get("NO_COLOR"))  # no bold letters either
COLOURS: Literal["auto"] | None = None if PLAIN else "auto"
stdout = Console(highlight=False, color_system=COLOURS)
stderr = Console(stderr=True, highlight=False, color_system=COLOURS)


def warn(text: str) -> None:
    stderr.print(f"[yellow]warning:[/] {plain(text)}", soft_wrap=True)


def say(text: str, quiet: bool = False) -> None:
    if not quiet:
        stderr.print(plain(text), soft_wrap=True)


def tell(text: str) -> None:
    """Print a sentence on standard output: wrapped between words in a terminal, one line elsewhere,
    for searches in a log.
    """
    stdout.print(text, soft_wrap=not stdout.is_terminal)


def plain(text: str) -> str:
    """Text of unknown origin for a terminal: one line, no control characters, markup or secrets."""
    from rich.markup import escape

    return escape(
        "".join(c for c in displayable(without_secrets(" ".join(text.split()))) if c.isprintable())
    )


def print_json(value: Any) -> None:
    """Print JSON that can be read back in any encoding of standard output: ASCII unless UTF-8."""
    text = json.dumps(value, indent=1, ensure_ascii=output_encoding() != "utf-8")
    # half of a surrogate pair becomes its JSON escape
    sys.stdout.write(displayable(text) + "\n")


@contextmanager
def listening(quiet: bool) -> Iterator[Listener]:
    """A listener that shows progress on standard error; Ctrl-C and SIGTERM stop it between two
    pieces of work.

    At the end of the context, a stopped command exits.
    """
    from findnemo.errors import StoppedError
    from findnemo.runs.stopping import stopping
    from findnemo.tasks import Listener

    quiet_libraries()
    with stopping(say) as stop, suppress(StoppedError), progress_watch(quiet) as watch:
        if watch is None:
            yield Listener(warn=warn, stop=stop)
        else:
            yield Listener(watch.stage, watch.said, watch.warned, stop, watch.passed)
    if stop.asked:
        raise SystemExit(stop.status)


@contextmanager
def progress_watch(quiet: bool) -> Iterator[Watch | None]:
    """A watch that reports progress on standard error; None for a quiet command."""
    if quiet:
        yield None
        return
    with watching(stderr, say, warn) as watch:
        yield watch
