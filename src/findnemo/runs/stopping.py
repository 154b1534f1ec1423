"""Stopping: Ctrl-C and SIGTERM let what is under way come to its end, if that does not take too long.

with stopping() as stop:
    audit(work, prompts, stop=stop)
if stop.asked:
    sys.exit(stop.status)  # 130 after Ctrl-C, 143 after SIGTERM
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 5.0  # seconds that work has to come to its end after SIGTERM
LAST = 8.0  # seconds after which the process ends wherever it is: within a kernel, say, where no exception is seen
FIRST_WORD = "stopping after what is under way; Ctrl-C again stops at once"


class Stopping:
    """Whether to stop, and why. Called, it answers `asked`: the form that loops take as `stop`."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        self.asked, self.status, self._tell = False, 0, tell
        self._over = threading.Event()

    def __call__(self) -> bool:
        return self.asked

    def ask(self, number: int) -> None:
        """What a signal does: the first asks, the second raises: KeyboardInterrupt after Ctrl-C, SystemExit after SIGTERM."""
        again, self.asked, self.status = self.asked, True, 128 + number
        if again:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(self.status)
        if number == signal.SIGINT:
            self._tell(FIRST_WORD)

    def watch(self, wakeup: int) -> None:
        """Once SIGTERM has come: ask again after GRACE seconds, which raises out of the work, and end the process after LAST.

        Runs in a thread of its own, for a signal is heard by Python code only between two steps of the main thread. What `wakeup`, a
        descriptor, gives is the numbers of the signals, at once.
        """
        while not self._over.is_set():
            if signal.SIGTERM not in os.read(wakeup, 64):
                continue
            if not self._over.wait(GRACE):
                os.kill(os.getpid(), signal.SIGTERM)
            if not self._over.wait(LAST - GRACE):
                os._exit(128 + signal.SIGTERM)
            return

    def end(self, writing: int) -> None:
        """Let the watcher go. A byte wakes it: to close the pipe is not enough while a forked process holds it open as well."""
        self._over.set()
        os.write(writing, b"\0")


@contextmanager
def stopping(tell: Callable[[str], None] = lambda text: None) -> Iterator[Stopping]:
    """Handle SIGINT and SIGTERM while the context lasts. In another thread than the main one nothing is handled.

    The first Ctrl-C sets `asked`, tells so, and lets the work go on to its next look; a second raises KeyboardInterrupt. SIGTERM sets
    `asked`; work that has not ended after GRACE seconds is left by SystemExit, and after LAST seconds the process ends.
    """
    stop = Stopping(tell)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=stop.watch, args=(reading,), daemon=True)

    def heard(number: int, frame: FrameType | None) -> None:
        stop.ask(number)

    old: dict[int, Any] = {
        number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)
    }
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        stop.end(writing)
        watcher.join()
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(writing)
        os.close(reading)
