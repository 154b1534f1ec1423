"""Functions side by side that do together what several of them ask for.

Each runs in a thread of its own, but only one at a time, in their order, until it asks for
something or ends. When all have, what they asked for is done, and they go on. So who meets whom
follows from what they ask, never from the clock, and nothing needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar, copy_context
from threading import Semaphore, Thread
from typing import Any, TypeVar

T = TypeVar("T")
X = TypeVar("X")
Y = TypeVar("Y")

PATIENCE = 2.0  # seconds for what runs when all are to end

Many = Callable[[Sequence[Any]], Sequence[Any]]


class _Left(BaseException):
    """Raised in a function that waits, where the meeting was broken off."""


class _Member:
    """A function under way, and what it asks for."""

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
        except BaseException as fatal:  # such as KeyboardInterrupt: for the one who leads
            self.fatal = fatal
        finally:
            self.ended = self.waits = True
            self._back.release()

    def go_on(self) -> None:
        """Let it run until it asks for something or ends; raises what is no error of its own."""
        self.waits = False
        self._turn.release()
        self._back.acquire()
        if self.fatal is not None:
            raise self.fatal

    def ask(self, key: Hashable, do: Many, one: Any) -> Any:
        """Called by the function itself: wait until what it asks for was done."""
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
        """End it, wherever it is, so that what it has begun is undone. One that runs, since its
        leader was interrupted, ends when it asks for something; nobody waits for that long.
        """
        self._over = True
        self._turn.release()
        self._thread.join(PATIENCE)


_member: ContextVar[_Member | None] = ContextVar("member", default=None)


def together(functions: Sequence[Callable[[], T]]) -> list[T]:
    """What each function gives, in their order.

    What one raises does not end the others; once all have ended, the first is raised. Each sees the
    context variables of the caller, and changes its own copy of them.

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
        for member in sorted(members, key=lambda member: member.waits):  # one that runs first
            member.leave()
    for member in members:
        if member.problem is not None:
            raise member.problem
    return [member.given for member in members]


def _do(group: Sequence[_Member]) -> None:
    """What a group asks for, in one go; where that fails, one by one, so that each has its own."""
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
    for member in group:  # outside the handler, which holds what has failed
        _do([member])


def ask(key: Hashable, do: Callable[[Sequence[X]], Sequence[Y]], one: X) -> Y:
    """`do([one])[0]`, done together with what the others in `together` ask for under the same key;
    by itself where there are none.
    """
    member = _member.get()
    given: Y = do([one])[0] if member is None else member.ask(key, do, one)
    return given


def go_on_or_leave() -> None:
    """To be called now and then by what works long without asking: ends the function where the
    meeting was broken off.
    """
    member = _member.get()
    if member is not None and member.is_over:
        raise _Left
