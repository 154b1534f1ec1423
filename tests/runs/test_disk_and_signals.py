"""Disks that are full or read-only, and signals: a plain word, nothing half written, and the
same audit goes on to the same results.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import _killing as killing
import pytest

from findnemo.errors import InputError, StorageError
from findnemo.runs import Run, acquire, stopping

AUDIT = import_module("findnemo.runs.audit")
STOPPING = import_module("findnemo.runs.stopping")


@pytest.fixture(scope="module")
def small() -> killing.Audit:
    return killing.small_audit()


@pytest.fixture(scope="module")
def want(small, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    small(out)
    return killing.outcome(out)


@contextmanager
def tmpfs(place: Path, size: str) -> Iterator[Path]:
    """A small file system of its own; skips where it may not be mounted."""
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True
        ).returncode
    ):
        pytest.skip(
            "a file system cannot be mounted here: tests of full and read-only disks are left out"
        )
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def remounted(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


@pytest.mark.first(1)
@pytest.mark.parametrize("size", ["48k", "96k", "160k"])
def test_a_full_disk_is_said_and_the_audit_goes_on_when_there_is_room(small, want, tmp_path, size):
    with tmpfs(tmp_path / "disk", size) as disk:
        with pytest.raises(
            StorageError,
            match=r"disk.* cannot be written: no space left on the device; free some room",
        ):
            small(disk / "run")
        assert not [p for p in (disk / "run").rglob("*.png") if not p.stat().st_size]
        remounted(disk, "size=50m")
        small(disk / "run")
        assert killing.outcome(disk / "run") == want


def test_a_read_only_disk_is_said(small, want, tmp_path):
    with tmpfs(tmp_path / "disk", "50m") as disk:
        (disk / "run").mkdir()
        remounted(disk, "ro")
        with pytest.raises(
            StorageError,
            match="cannot be written: it is read-only; make it writable, or take another directory",
        ):
            small(disk / "run")
        remounted(disk, "rw")
        small(disk / "run")
        remounted(disk, "ro")
        with Run.open(disk / "run") as run:  # reading goes on
            assert len(list(run.captions())) == 4
        remounted(disk, "rw")
        assert killing.outcome(disk / "run") == want


def test_a_limit_on_the_size_of_files_is_said(small, want, tmp_path):
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        with pytest.raises(StorageError, match="cannot be written"):
            small(tmp_path / "run")

    assert killing.ended(killing.forked(limited)) == 0
    small(tmp_path / "run")
    assert killing.outcome(tmp_path / "run") == want


# signals ------------------------------------------------------------------------------------------


def stopped(
    out: Path, signals: Sequence[int], search_ends: bool = False
) -> tuple[int, list[bytes]]:
    """An audit in a process of its own, to which signals are sent during a search: its
    status, and what it said before each signal.

    Its clock stands still: it says for how many seconds it sets an alarm, and a signal of the
    caller stands for the alarm. `search_ends`: after the signals; else the search would last for
    ever.
    """
    heard = os.pipe()
    gate = os.pipe()

    def timer(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
        assert which == signal.ITIMER_REAL
        if seconds:
            os.write(heard[1], b"%5.1f" % seconds)
        return 0.0, 0.0

    def work() -> None:
        os.close(gate[1])
        signal.setitimer = timer
        real = AUDIT.localize

        def localize(*arguments, **options):
            os.write(heard[1], b"begun")
            os.read(gate[0], 1)
            return real(*arguments, **options)

        AUDIT.localize = localize
        with stopping(lambda text: os.write(heard[1], b"heard")) as stop:
            killing.small_audit(stop)(out)
        os._exit(stop.status)

    number = killing.forked(work)
    os.close(heard[1])
    said: list[bytes] = []
    for sent in signals:
        said.append(os.read(heard[0], 5))  # the search has begun, or the signal before was heard
        assert said[-1]
        os.kill(number, sent)
    if search_ends:
        os.read(heard[0], 5)  # the last signal was heard
        os.close(gate[1])
    status = killing.ended(number)
    for end in (heard[0], gate[0], *([] if search_ends else gate[1:])):
        os.close(end)
    return status, said


def test_ctrl_c_lets_what_is_under_way_end_and_a_second_one_stops_at_once(small, want, tmp_path):
    """At once: while the search goes on."""
    status, _ = stopped(tmp_path / "one", [signal.SIGINT], search_ends=True)
    assert status == 130
    with Run.open(tmp_path / "one") as run:
        assert len(run.done("localize")) == 1  # what was under way
        assert not run.done("verify")
    status, said = stopped(tmp_path / "two", [signal.SIGINT, signal.SIGINT])
    assert status != 0
    assert said == [b"begun", b"heard"]
    for out in (tmp_path / "one", tmp_path / "two"):
        small(out)
        assert killing.outcome(out) == want


@pytest.mark.slow
def test_sigterm_ends_within_ten_seconds_whatever_is_under_way(small, want, tmp_path):
    """It gives what is under way the seconds of an alarm, and ends when that rings."""
    status, _ = stopped(tmp_path / "one", [signal.SIGTERM], search_ends=True)
    assert status == 143
    with Run.open(tmp_path / "one") as run:
        assert len(run.done("localize")) == 1  # what was under way ends if it can
    status, said = stopped(tmp_path / "two", [signal.SIGTERM, signal.SIGALRM])
    assert status == 143
    assert said[0] == b"begun"
    assert 0 < float(said[1]) == STOPPING.GRACE < 10
    for out in (tmp_path / "one", tmp_path / "two"):
        small(out)
        assert killing.outcome(out) == want


# clocks, and others who write ---------------------------------------------------------------------


def test_a_clock_that_goes_backwards_changes_nothing(small, want, tmp_path, monkeypatch):
    hours = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    small(tmp_path / "run")
    assert killing.outcome(tmp_path / "run") == want


def test_a_second_process_is_refused_or_waits(small, tmp_path):
    small(tmp_path / "run")
    lock = acquire(tmp_path / "run")
    looked = os.pipe()
    sleep = time.sleep

    def look(seconds: float) -> None:
        os.write(looked[1], b".")
        sleep(0.01)

    def second() -> None:
        lock.close()  # the copy of this process
        with pytest.raises(InputError, match="in use by another findnemo process"):
            acquire(tmp_path / "run")
        time.sleep = look  # between two looks at the lock
        acquire(tmp_path / "run", wait=True).close()

    number = killing.forked(second)
    os.close(looked[1])
    for _ in range(3):
        assert os.read(looked[0], 1)  # it waits
    lock.close()
    assert killing.ended(number) == 0
    os.close(looked[0])
