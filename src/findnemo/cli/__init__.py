"""The command line. Faces compute nothing: every command calls the API."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: runs a command; an error that findnemo raises on purpose becomes one line and an exit status."""
    from findnemo.cli._app import app
    from findnemo.cli._common import stderr
    from findnemo.errors import FindnemoError

    try:
        app()
    except FindnemoError as error:
        from rich.markup import escape

        stderr.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        stderr.print("interrupted; run the same command again to go on")
        sys.exit(130)


__all__ = ["main"]
