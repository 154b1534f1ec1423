"""The command line. Faces compute nothing: every command calls the API."""

from __future__ import annotations

import sqlite3
import sys


def main() -> None:
    """Entry point: runs a command; an error that findnemo raises on purpose becomes one line and an exit status."""
    from findnemo.cli._app import app
    from findnemo.cli._common import plain, stderr
    from findnemo.errors import FindnemoError

    try:
        app()
    except FindnemoError as error:
        stderr.print(f"[red]error:[/] {plain(str(error))}", soft_wrap=True)
        sys.exit(error.exit_status)
    except (OSError, sqlite3.Error) as error:  # no such place, no permission, a full disk
        stderr.print(f"[red]error:[/] {plain(str(error))}", soft_wrap=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == 130:  # what Typer makes of Ctrl-C
            stderr.print("interrupted; run the same command again to go on")
        raise


__all__ = ["main"]
