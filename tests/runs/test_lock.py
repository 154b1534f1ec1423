"""One process at a time writes to a run directory."""

from __future__ import annotations

import os
import time

import _killing as killing
import pytest

from findnemo.errors import InputError
from findnemo.runs import Run, acquire


@pytest.mark.slow
def test_of_several_processes_that_start_at_once_exactly_one_writes(tmp_path):
    """Five rounds of six: those who come second are refused, and what is written
    is the first one's alone.
    """
    path = tmp_path / "run"
    rounds = 5
    racers = 6
    for turn in range(rounds):
        gate = os.pipe()
        done = os.pipe()

        def race(name: int, turn=turn, gate=gate, done=done) -> None:
            os.close(gate[1])
            os.close(done[1])
            os.read(gate[0], 1)  # until all are there
            with Run.create(path, {"model": "abc"}) as run:
                run.set_meta(f"written {turn}", [*(run.meta(f"written {turn}") or []), name])
                os.read(done[0], 1)  # hold it until all have tried

        children = [killing.forked(lambda k=k, race=race: race(k)) for k in range(racers)]
        os.close(gate[1])
        losers: dict[int, int] = {}
        while len(losers) < racers - 1:
            over = [os.waitpid(number, os.WNOHANG) for number in children if number not in losers]
            losers |= {number: status for number, status in over if number}
            time.sleep(0.01)
        assert {os.waitstatus_to_exitcode(status) for status in losers.values()} == {1}
        os.close(done[1])
        (winner,) = set(children) - set(losers)
        assert killing.ended(winner) == 0
        with Run.open(path) as run:
            assert run.meta(f"written {turn}") == [children.index(winner)]
        for end in (gate[0], done[0]):
            os.close(end)


def test_who_comes_second_is_told_who_holds_the_directory(tmp_path):
    with acquire(tmp_path), pytest.raises(InputError, match=rf"in use .*its number: {os.getpid()}"):
        acquire(tmp_path)
    acquire(tmp_path).close()  # the first let go of it


def test_a_lock_file_that_names_nobody_is_taken(tmp_path):
    (tmp_path / ".lock").write_text("not a number, of a process that is gone\n")
    with acquire(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_that_leads_elsewhere_is_refused(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(mine)
    with pytest.raises(InputError, match="is a link"):
        acquire(tmp_path / "run")
    assert mine.read_text() == "mine"
