"""Signals ask to stop, and what was handled before is handled again."""

from __future__ import annotations

import os
import signal
import threading
from importlib import import_module

import _killing as killing
import pytest

from findnemo.runs import stopping

STOPPING = import_module("findnemo.runs.stopping")


def test_what_was_handled_before_is_handled_again_also_where_a_child_lives_on():
    before = (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        threading.active_count(),
    )
    with stopping() as stop:
        child = killing.forked(signal.pause)
        assert not stop()
    assert (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        threading.active_count(),
    ) == before
    os.kill(child, signal.SIGKILL)
    assert killing.ended(child) == -signal.SIGKILL


@pytest.mark.parametrize("terminated", [False, True])
def test_an_alarm_of_the_program_is_due_when_it_was(terminated):
    rung = []
    due = 1000.0  # seconds from now: later than the grace after SIGTERM
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    timer = signal.setitimer(signal.ITIMER_REAL, due)
    try:
        with stopping() as stop:
            if terminated:
                os.kill(os.getpid(), signal.SIGTERM)
            assert stop() is terminated
            grace, _ = signal.getitimer(signal.ITIMER_REAL)
            assert (grace <= STOPPING.GRACE) is terminated
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert STOPPING.GRACE < left <= due
        assert not rung
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)
    assert rung == [signal.SIGALRM]


def test_in_another_thread_nothing_is_handled():
    asked = []

    def other() -> None:
        with stopping() as stop:
            asked.append((stop(), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert asked == [(False, before)]
