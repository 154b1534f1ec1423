"""The command line. Faces compute nothing: every command calls the API.

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
EXPECTED = (OSError,)  # no such place, no permission, a full disk


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
    """Have PyTorch's threads leave their core to others while they wait for each other, unless the
    user has said how threads behave.

    They spin by default, which beside other processes takes the time from the thread that all wait
    for. It has to be said before PyTorch is imported.
    """
    if not any(os.environ.get(name) for name in SAID):
        os.environ["OMP_WAIT_POLICY"] = "passive"


@contextmanager
def _sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that a command can tidy up; where it works through
    captions, `stopping` does better.
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
    """What a user reads of an error.

    One that findnemo does not raise on purpose names its kind, and where to report it.
    """
    from findnemo.cli._common import plain
    from findnemo.errors import FindnemoError

    if isinstance(error, (FindnemoError, *EXPECTED)):
        return plain(str(error))
    what = plain(f"{type(error).__name__}: {error}")
    return (
        f"{what} (unexpected: `findnemo --debug COMMAND ...` shows where; please report it at"
        f" {ISSUES})"
    )


def _traceback() -> str:
    """The traceback of the error at hand, without control characters (a caption
    may be in it) and secrets.
    """
    import traceback

    from findnemo.files.secrets import hidden

    return "".join(c for c in hidden(traceback.format_exc()) if c.isprintable() or c == "\n")


__all__ = ["main"]
