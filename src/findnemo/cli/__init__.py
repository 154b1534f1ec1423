"""The command line. It computes nothing: every command calls the API.

May be imported: `main`. May import: everything.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ISSUES = "https://github.com/findnemo/findnemo/issues"
STOPPED = (130, 143)  # exit status after Ctrl-C and after SIGTERM
SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def main() -> None:
    """Entry point: runs a command.

    An error becomes one line and an exit status; `findnemo --debug` shows its traceback too.
    """
    from findnemo.cli._app import app
    from findnemo.cli._common import Global, stderr
    from findnemo.cli._streams import showable_streams
    from findnemo.errors import exit_status

    showable_streams()
    _sleep_while_waiting()
    options = Global()
    try:
        with _sigterm():
            app(obj=options)
    except SystemExit as stop:
        if stop.code in STOPPED:
            stderr.print("stopped; run the same command again to go on")
        raise
    except Exception as error:
        if options.debug:
            stderr.print(_traceback(), markup=False, soft_wrap=True, end="")
        stderr.print(f"[red]error:[/] {_line(error)}", soft_wrap=True)
        sys.exit(exit_status(error))


def _sleep_while_waiting() -> None:
    """Let PyTorch's threads sleep while they wait for each other, unless the user has set how they
    wait.

    By default they spin. When other processes run, this takes time from the thread that all wait
    for. It must be set before PyTorch is imported.
    """
    if not any(os.environ.get(name) for name in SAID):
        os.environ["OMP_WAIT_POLICY"] = "passive"


@contextmanager
def _sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that a command can clean up; `stopping` does more for work
    on captions.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    old = signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _line(error: Exception) -> str:
    """The text of an error for the user.

    An error that findnemo does not raise on purpose has its type, and the place to report it.
    """
    from findnemo.cli._common import plain
    from findnemo.errors import FindnemoError

    # missing paths, no permission, a full disk
    if isinstance(error, (FindnemoError, OSError)):
        return plain(str(error))
    what = plain(f"{type(error).__name__}: {error}")
    return (
        f"{what} (unexpected: `findnemo --debug COMMAND ...` shows where; please report it at"
        f" {ISSUES})"
    )


def _traceback() -> str:
    """The traceback of the current error, without secrets and control characters (of captions)."""
    import traceback

    from findnemo.files.secrets import without_secrets

    return "".join(
        c for c in without_secrets(traceback.format_exc()) if c.isprintable() or c == "\n"
    )


__all__ = ["main"]
