"""Functions side by side: who meets whom, in which order, and what an error does to the others."""

import signal
import threading
from contextvars import ContextVar
from functools import partial
from threading import Semaphore

import pytest

from findnemo.runtime import meeting
from findnemo.runtime.meeting import ask, together


@pytest.fixture
def calls():
    return []


def asker(calls):
    def squares(numbers):
        calls.append(list(numbers))
        return [n * n for n in numbers]

    return lambda n, key="square": ask(key, squares, n)


def test_what_is_asked_for_in_one_round_is_done_in_one_call(calls):
    square = asker(calls)

    def search(first, rounds):
        return [square(first + k) for k in range(rounds)]

    assert together([partial(search, 1, 2), partial(search, 5, 3), partial(search, 9, 1)]) == [
        [1, 4],
        [25, 36, 49],
        [81],
    ]
    assert calls == [[1, 5, 9], [2, 6], [7]]


def test_what_is_of_another_kind_is_done_by_itself_in_the_order_of_the_functions(calls):
    square = asker(calls)
    functions = [partial(square, n, key) for n, key in ((1, "a"), (2, "b"), (3, "a"), (4, "b"))]
    assert together(functions) == [1, 4, 9, 16]
    assert calls == [[1, 3], [2, 4]]


def test_one_runs_at_a_time_until_it_asks(calls):
    square = asker([])
    running = Semaphore(1)

    def search(name):
        for k in range(3):
            assert running.acquire(blocking=False)
            calls.append(f"{name}{k}")
            running.release()
            square(k)

    together([partial(search, name) for name in "abc"])
    assert calls == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_an_error_of_one_is_its_own(calls):
    square = asker(calls)

    def search(n):
        first = square(n)
        if n == 2:
            raise ValueError("two")
        return first + square(n + 10)

    with pytest.raises(ValueError, match="two"):
        together([partial(search, n) for n in (1, 2, 3)])
    assert calls == [[1, 2, 3], [11, 13]]  # the others went on to their end


def test_where_what_is_done_together_fails_each_is_done_alone(calls):
    def halves(numbers):
        calls.append(list(numbers))
        if any(n % 2 for n in numbers):
            raise ValueError(f"odd among {len(numbers)}")
        return [n // 2 for n in numbers]

    def search(n):
        try:
            return ask("half", halves, n)
        except ValueError as problem:
            return str(problem)

    assert together([partial(search, n) for n in (2, 3, 4)]) == [1, "odd among 1", 2]
    assert calls == [[2, 3, 4], [2], [3], [4]]


def test_alone_it_is_done_at_once(calls):
    assert asker(calls)(3) == 9
    assert calls == [[3]]
    assert together([]) == []


def test_context_variables_are_each_ones_own():
    level = ContextVar("level", default=0)
    level.set(1)
    square = asker([])

    def search(n):
        seen = level.get()
        level.set(n)
        square(n)
        return seen, level.get()

    assert together([partial(search, n) for n in (5, 6)]) == [(1, 5), (1, 6)]
    assert level.get() == 1


def test_functions_within_functions_meet_among_themselves(calls):
    square = asker(calls)

    def outer(n):
        return sum(together([partial(square, n), partial(square, n + 1)])) + square(n + 2)

    assert together([partial(outer, 1), partial(outer, 10)]) == [1 + 4 + 9, 100 + 121 + 144]
    assert calls == [[1, 2], [10, 11], [3, 12]]


def test_where_it_is_broken_off_all_is_undone(calls):
    """As by Ctrl-C, which comes to the thread that leads."""

    class Stop(BaseException):
        pass

    def stop(numbers):
        raise Stop

    def search(n):
        try:
            ask("stop", stop, n)
        except Exception:
            calls.append("an error that it could have taken")
        finally:
            calls.append(n)

    with pytest.raises(Stop):
        together([partial(search, 1), partial(search, 2)])
    assert calls == [1, 2]


@pytest.fixture
def interrupt():
    """A function that interrupts the main thread, once, and returns when it has heard.

    A signal that comes just before a thread begins to wait for a lock does not end the wait, so one
    signal may be lost; it is sent until it is heard.
    """
    heard = threading.Event()

    def stop(number, frame):
        if not heard.is_set():
            heard.set()
            raise KeyboardInterrupt

    def send():
        while not heard.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            heard.wait(0.1)

    before = signal.signal(signal.SIGINT, stop)
    yield send
    signal.signal(signal.SIGINT, before)


def test_nobody_waits_for_one_that_runs_when_its_leader_is_interrupted(
    calls, monkeypatch, interrupt
):
    monkeypatch.setattr(meeting, "PATIENCE", 0.01)
    go = threading.Event()
    left = threading.Event()
    undone = threading.Event()

    def runs():
        try:
            interrupt()
            go.wait()
            ask("never", calls.append, 1)
        finally:
            left.set()

    def waits():
        try:
            asker(calls)(2)
        finally:
            undone.set()

    with pytest.raises(KeyboardInterrupt):
        together([waits, runs])
    assert undone.wait(60)
    assert not left.is_set()
    go.set()
    assert left.wait(60)  # where it asks next, it ends too
    assert calls == []


def test_one_that_will_not_leave_cannot_ask_again(calls):
    def stop(numbers):
        raise KeyboardInterrupt

    def search(n):
        for _ in range(3):
            try:
                ask("stop", stop, n)
            except BaseException as problem:
                calls.append(type(problem).__name__)

    with pytest.raises(KeyboardInterrupt):
        together([partial(search, 1)])
    assert calls == ["_Left"] * 3


def test_what_is_no_error_of_a_function_ends_the_meeting(calls):
    square = asker([])

    def search(n):
        try:
            square(n)
            if n == 2:
                raise KeyboardInterrupt
            return square(n)
        finally:
            calls.append(n)

    with pytest.raises(KeyboardInterrupt):
        together([partial(search, n) for n in (1, 2, 3)])
    assert sorted(calls) == [1, 2, 3]


def test_a_signal_that_interrupts_no_wait_is_heard_all_the_same():
    """One that another thread gets, or that comes just before the main thread begins to wait."""
    heard = threading.Event()

    def busy():
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        return heard.wait(60)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.set())
    try:
        assert together([busy, busy]) == [True, True]
    finally:
        signal.signal(signal.SIGUSR1, before)
