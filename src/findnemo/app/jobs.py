"""Work on the one model that all sessions share: one piece at a time, each of which can be stopped
between two passes.

    jobs = Jobs()
    with jobs.turn("session", 0, model, lambda done: print(done)):
        image = findnemo.generate(model, "a caption", [0])
    jobs.cancel("session")  # from another thread: the next pass does not begin
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from findnemo.models import Model

WAIT = 0.2  # seconds between two checks whether waiting work was cancelled

# called with the number of latents that went through the denoiser so far
Tell = Callable[[int], None]


class CancelledError(Exception):
    """Its owner cancelled the work, or left."""


class Jobs:
    """Turns at the model.

    An epoch is the number of cancellations by a session. Work of an earlier epoch stops, running or
    waiting; work requested after the cancellation does not.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._epochs: dict[str, int] = {}

    def cancel(self, session: str) -> int:
        """Stop all work that a session has requested so far; return the epoch of its later
        requests.
        """
        self._epochs[session] = self._epochs.get(session, 0) + 1
        return self._epochs[session]

    @contextmanager
    def turn(self, session: str, epoch: int, model: Model, tell: Tell) -> Iterator[None]:
        """Hold the model exclusively while the context lasts.

        Raises CancelledError while waiting, before the next pass, or at the end.
        """

        def check() -> None:
            if self._epochs.get(session, 0) != epoch:
                raise CancelledError

        check()
        while not self._turn.acquire(timeout=WAIT):
            check()
        try:
            check()
            with watching_passes(model, check, tell):
                yield
            check()  # cancelled in the last pass
        finally:
            self._turn.release()


@contextmanager
def watching_passes(model: Model, check: Callable[[], None], tell: Tell) -> Iterator[None]:
    """Call `check` before every pass of the denoiser, then `tell` with the number of latents so
    far, this pass included.
    """
    done = 0

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        nonlocal done
        check()
        done += len(args[0] if args else kwargs["hidden_states"])
        tell(done)

    with model.denoiser.register_forward_pre_hook(before, with_kwargs=True):
        yield
