"""Run functions side by side, and serve the requests of several at once.

Each function has its own thread, but only one runs at a time, in order, until it makes a request or
ends. Once all have done so, their requests are served, and they go on. So requests, never the
clock, decide which functions share work, and nothing needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar, copy_context
from threading import Semaphore, Thread
from typing import Any, TypeVar

T = TypeVar("T")
X = TypeVar("X")
Y = TypeVar("Y")

HEARD = 1.0  # seconds after which a signal is heard that no wait was interrupted by
PATIENCE = 2.0  # seconds for a running function to end when all must end

Many = Callable[[Sequence[Any]], Sequence[Any]]


class _Left(BaseException):
    """Raised in a waiting function when the meeting is broken off."""


class _Member:
    """A function in progress, and its request."""

    def __init__(self, function: Callable[[], Any]):
        self.asked: tuple[Hashable, Many, Any] = (None, list, None)
        self.given: Any = None
        self.problem: Exception | None = None
        self.fatal: BaseException | None = None
        self.ended = False
        self.waits = True
        self.leader = _member.get()
        self._function = function
        self._over = False
        self._turn = Semaphore(0)
        self._back = Semaphore(0)
        context = copy_context()
        self._thread = Thread(target=context.run, args=(self._run,), daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _member.set(self)
        self._turn.acquire()
        try:
            self.given = None if self._over else self._function()
        except Exception as problem:
            self.problem = problem
        except _Left:
            pass
        except BaseException as fatal:  # such as KeyboardInterrupt: passed to the leader
            self.fatal = fatal
        finally:
            self.ended = self.waits = True
            self._back.release()

    def go_on(self) -> None:
        """Let it run until it makes a request or ends; raises fatal errors such as
        KeyboardInterrupt.
        """
        self.waits = False
        self._turn.release()
        while not self._back.acquire(timeout=HEARD):
            pass  # Python hears signals between two waits: one that came just before this one, too
        if self.fatal is not None:
            raise self.fatal

    def ask(self, key: Hashable, do: Many, one: Any) -> Any:
        """Called by the function itself: wait until its request is served."""
        if self._over:
            raise _Left
        self.asked = key, do, one
        self.waits = True
        self._back.release()
        self._turn.acquire()
        if self._over:
            raise _Left
        problem, self.problem = self.problem, None
        if problem is not None:
            raise problem
        return self.given

    @property
    def is_over(self) -> bool:
        return self._over or (self.leader is not None and self.leader.is_over)

    def leave(self) -> None:
        """End the function wherever it is, so that it undoes what it began.

        A running function, whose leader was interrupted, ends at its next request; nobody waits for
        that long.
        """
        self._over = True
        self._turn.release()
        self._thread.join(PATIENCE)


_member: ContextVar[_Member | None] = ContextVar("member", default=None)


def together(functions: Sequence[Callable[[], T]]) -> list[T]:
    """The result of each function, in order.

    An error in one does not end the others; once all have ended, the first error is raised. Each
    sees the context variables of the caller, and changes its own copy of them.

    >>> def doubled(numbers):
    ...     print(numbers)
    ...     return [2 * n for n in numbers]
    >>> together([lambda: 1 + ask("doubled", doubled, 4), lambda: ask("doubled", doubled, 5)])
    [4, 5]
    [9, 10]
    """
    members: list[_Member] = []
    try:
        members += map(_Member, functions)
        while waiting := [member for member in members if not member.ended]:
            for member in waiting:
                member.go_on()
            groups: dict[Hashable, list[_Member]] = {}
            for member in waiting:
                if not member.ended:
                    groups.setdefault(member.asked[0], []).append(member)
            for group in groups.values():
                _do(group)
    finally:
        for member in sorted(members, key=lambda member: member.waits):  # a running one first
            member.leave()
    for member in members:
        if member.problem is not None:
            raise member.problem
    return [member.given for member in members]


def _do(group: Sequence[_Member]) -> None:
    """Serve the requests of a group at once; if that fails, one by one, so that each gets its own
    result or error.
    """
    try:
        _, do, _ = group[0].asked
        given = do([member.asked[2] for member in group])
        for member, one in zip(group, given, strict=True):
            member.given = one
        return
    except Exception as problem:
        if len(group) == 1:
            group[0].problem = problem
            return
    for member in group:  # outside the handler, which holds the failed work
        _do([member])


def ask(key: Hashable, do: Callable[[Sequence[X]], Sequence[Y]], one: X) -> Y:
    """`do([one])[0]`, computed together with the requests of others in `together` under the same
    key, or alone if there are none.
    """
    member = _member.get()
    given: Y = do([one])[0] if member is None else member.ask(key, do, one)
    return given


def go_on_or_leave() -> None:
    """End the calling function if the meeting was broken off.

    Functions that work long without requests should call it now and then.
    """
    member = _member.get()
    if member is not None and member.is_over:
        raise _Left
