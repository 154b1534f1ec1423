"""One process at a time writes to a run directory."""

from __future__ import annotations

import os
import time

import _killing as killing
import pytest

from findnemo.runs import Run


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
