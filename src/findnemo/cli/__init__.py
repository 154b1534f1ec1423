"""The command line. Faces compute nothing: every command calls the API."""

from __future__ import annotations

import sqlite3
import sys

ISSUES = "https://github.com/findnemo/findnemo/issues"
SPENT = 130  # exit status after Ctrl-C
EXPECTED = (OSError, sqlite3.Error)  # no such place, no permission, a full disk


def main() -> None:
    """Entry point: runs a command. An error becomes one line and an exit status; `findnemo --debug` shows its traceback too."""
    from findnemo.cli._app import app
    from findnemo.cli._common import Global, stderr

    given = Global()
    try:
        app(obj=given)
    except SystemExit as stop:
        if stop.code == SPENT:  # what Typer makes of Ctrl-C
            stderr.print("interrupted; run the same command again to go on")
        raise
    except Exception as error:
        if given.debug:
            stderr.print(_traceback(), markup=False, soft_wrap=True, end="")
        stderr.print(f"[red]error:[/] {_line(error)}", soft_wrap=True)
        sys.exit(getattr(error, "exit_status", 1))


def _line(error: Exception) -> str:
    """What a user reads of an error. One that findnemo does not raise on purpose names its kind, and where to report it."""
    from findnemo.cli._common import plain
    from findnemo.errors import FindnemoError

    if isinstance(error, (FindnemoError, *EXPECTED)):
        return plain(str(error))
    told = plain(f"{type(error).__name__}: {error}")
    return f"{told} (unexpected: `findnemo --debug COMMAND ...` shows where; please report it at {ISSUES})"


def _traceback() -> str:
    """The traceback of the error at hand, without control characters (a caption may be in it) and secrets."""
    import traceback

    from findnemo._secrets import hidden

    return "".join(c for c in hidden(traceback.format_exc()) if c.isprintable() or c == "\n")


__all__ = ["main"]
