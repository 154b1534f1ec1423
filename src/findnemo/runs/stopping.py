"""Stop work in order: after Ctrl-C or SIGTERM, work in progress may finish if it does not take too
long.

with stopping() as stop:
    audit(work, prompts, stop=stop)
if stop.asked:
    sys.exit(stop.status)  # 130 after Ctrl-C, 143 after SIGTERM
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 5.0  # seconds for work in progress to finish after SIGTERM
FIRST_WORD = "stopping after what is under way; Ctrl-C again stops at once"


class Stopping:
    """Whether to stop, and why. A call returns `asked`: loops take the object as their `stop`."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        self.asked = False
        self.status = 0
        self._tell = tell

    def __call__(self) -> bool:
        return self.asked

    def ask(self, number: int) -> None:
        """Handle a signal: the first sets `asked`, the second raises.

        Raises KeyboardInterrupt after Ctrl-C, SystemExit after SIGTERM.
        """
        again = self.asked
        self.asked = True
        self.status = 128 + number
        if again:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(self.status)
        if number == signal.SIGINT:
            self._tell(FIRST_WORD)


@contextmanager
def stopping(tell: Callable[[str], None] = lambda text: None) -> Iterator[Stopping]:
    """Handle SIGINT and SIGTERM while the context lasts; only in the main thread.

    The first Ctrl-C sets `asked`, says so, and work goes on until it checks `asked`. A second
    Ctrl-C raises KeyboardInterrupt. SIGTERM sets `asked`; if work has not ended after GRACE
    seconds, SystemExit is raised as soon as Python code runs again. An alarm of the program itself
    (SIGALRM) is left alone until then.
    """
    stop = Stopping(tell)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    alarms: list[tuple[Any, tuple[float, float]]] = []  # the program's own alarm, while ours is set

    def too_late(number: int, frame: FrameType | None) -> None:
        raise SystemExit(stop.status)

    def heard(number: int, frame: FrameType | None) -> None:
        stop.ask(number)
        if number == signal.SIGTERM:
            handler = signal.signal(signal.SIGALRM, too_late)
            alarms.append((handler, signal.setitimer(signal.ITIMER_REAL, GRACE)))

    signals = (signal.SIGINT, signal.SIGTERM)
    old: dict[int, Any] = {number: signal.signal(number, heard) for number in signals}
    try:
        yield stop
    finally:
        for handler, alarm in alarms:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *alarm)
        for number, handler in old.items():
            signal.signal(number, handler)
