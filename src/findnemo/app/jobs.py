"""Work on the one model that all sessions share: one piece at a time, and each can be
stopped between two passes.

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

WAIT = 0.2  # seconds between two looks at whether work that waits for its turn has been cancelled

Tell = Callable[[int], None]  # called with the latents that went through the denoiser so far


class CancelledError(Exception):
    """Its owner cancelled the work, or left."""


class Jobs:
    """Turns at the model.

    An epoch is the number of times that a session has cancelled: work of an earlier epoch stops.

    So what still waits in a queue when its owner cancels stops as well as what runs, and what is
    asked for afterwards does not.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._epochs: dict[str, int] = {}

    def cancel(self, session: str) -> int:
        """Stop all work that a session has asked for so far; returns the epoch of what
        it asks for from now on.
        """
        self._epochs[session] = self._epochs.get(session, 0) + 1
        return self._epochs[session]

    @contextmanager
    def turn(self, session: str, epoch: int, model: Model, tell: Tell) -> Iterator[None]:
        """The model to oneself while the context lasts.

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
            with watched(model, check, tell):
                yield
            check()  # cancelled in the last pass
        finally:
            self._turn.release()


@contextmanager
def watched(model: Model, check: Callable[[], None], tell: Tell) -> Iterator[None]:
    """Call `check` before every pass of the denoiser, then `tell` with the latents that have
    gone through it, this pass included.
    """
    done = 0

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        nonlocal done
        check()
        done += len(args[0] if args else kwargs["hidden_states"])
        tell(done)

    handle = model.denoiser.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
