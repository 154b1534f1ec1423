"""What is said while a command works, by a clock that the tests turn themselves."""

from __future__ import annotations

import io
import threading
from itertools import pairwise

import pytest
from rich.console import Console

from findnemo.cli import _progress
from findnemo.cli._progress import SILENCE, StageProgress, Watch, watching


class Sight:
    """A watch with a clock, and what it has written: (seconds, line)."""

    def __init__(self, bars=None):
        self.now = 0.0
        self.lines: list[tuple[float, str]] = []
        note = lambda text: self.lines.append((self.now, text))  # noqa: E731
        self.watch = Watch(note, note, bars, clock=lambda: self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass while the other thread looks every second."""
        for _ in range(int(seconds)):
            self.now += 1
            self.watch.tick()

    @property
    def last(self) -> str:
        return self.lines[-1][1]

    def gaps(self) -> list[float]:
        times = [0.0, *(seconds for seconds, _ in self.lines), self.now]
        return [after - before for before, after in pairwise(times)]


def test_nothing_is_estimated_before_there_is_a_rate():
    sight = Sight()
    sight.watch.stage("detect", 0, 20)
    sight.wait(130)
    sight.watch.stage("detect", 2, 20)
    assert not any("left" in line for _, line in sight.lines)


def test_the_start_is_forgotten():
    """A first caption with loading and warming up takes ten minutes, the others two seconds."""
    sight = Sight()
    sight.watch.stage("compare", 0, 26)
    sight.now = 600
    for done in range(1, 25):
        sight.watch.stage("compare", done, 26)
        sight.now += 2
        if done > 2:
            assert "left" in sight.last
    assert sight.last == "compare 24/26, about 4 s left"


def test_a_stage_that_becomes_slower_is_seen_within_a_window():
    stage = StageProgress("compare", 0, 1000, 0.0, 0)
    now = 0.0
    for done in range(1, 301):
        now += 1 if done < 200 else 10
        stage.step(done, now, 0)
    assert stage.left(now, 0) == pytest.approx(10 * 700, rel=0.01)


def test_what_was_done_before_is_no_rate():
    stage = StageProgress("compare", 900, 1000, 0.0, 0)
    stage.step(901, 30.0, 0)
    assert stage.left(30.0, 0) is None
    stage.step(902, 40.0, 0)
    assert stage.left(40.0, 0) == pytest.approx(980)


def test_captions_that_share_passes_count_as_what_they_took():
    """Eight become known at once, every 16 seconds: two seconds each."""
    stage = StageProgress("calibrate", 0, 48, 0.0, 0)
    for group in range(1, 4):
        for k in range(1, 9):
            stage.step(8 * (group - 1) + k, 16.0 * group, 0)
    assert stage.left(48.0, 0) == pytest.approx(48)


def test_parts_of_a_caption_count_by_what_went_through_the_denoiser():
    stage = StageProgress("verify", 0, 5, 0.0, 700)
    assert stage.part(50.0, 1200) == 0  # how much a caption takes is not known yet
    stage.step(1, 100.0, 1500)
    assert stage.part(150.0, 1900) == pytest.approx(0.5)
    assert stage.left(150.0, 1900) is None
    stage.step(2, 200.0, 2300)
    assert stage.part(210.0, 2500) == pytest.approx(0.25)
    assert stage.left(210.0, 2500) == pytest.approx(275)
    assert stage.part(900.0, 9999) == 1
    assert stage.left(900.0, 9999) == pytest.approx(200)


def test_parts_of_a_caption_count_by_time_where_workers_compute():
    stage = StageProgress("verify", 0, 5, 0.0, 0)
    stage.step(1, 100.0, 0)
    stage.step(2, 200.0, 0)
    assert stage.part(240.0, 0) == pytest.approx(0.4)


@pytest.mark.parametrize(("name", "words"), [("verify", "at most about"), ("detect", ", about")])
def test_a_stage_that_begins_with_the_longest_says_at_most(name, words):
    stage = StageProgress(name, 0, 9, 0.0, 0)
    stage.step(1, 10.0, 0)
    stage.step(2, 20.0, 0)
    assert words in f", {stage.ahead(20.0, 0)}"


def test_a_line_comes_at_least_every_half_minute():
    """Loading, a caption of ten minutes, its picture check, and what follows without a word."""
    sight = Sight()
    sight.watch.said("loading demo")
    sight.wait(100)
    sight.watch.stage("verify", 0, 3)
    for _ in range(300):
        sight.watch.passed(4)
        sight.wait(2)
    assert sight.last == "verify 0/3, 10 min and 1,200 evaluations since the last"
    sight.watch.stage("verify", 1, 3)
    sight.wait(100)
    sight.watch.stage("verify", 3, 3)
    sight.wait(100)
    assert sight.last == "verify 3/3 done, 1.7 min since"
    assert max(sight.gaps()) <= SILENCE + 1


def test_no_line_comes_of_itself_where_enough_is_written():
    sight = Sight()
    sight.watch.stage("detect", 0, 100)
    for done in range(1, 101):
        sight.wait(2)
        sight.watch.stage("detect", done, 100)
    assert [line.split(",")[0] for _, line in sight.lines] == [
        f"detect {done}/100" for done in range(0, 101, 10)
    ]
    sight.watch.warned("row 3 is long")
    sight.wait(SILENCE - 1)
    assert sight.last == "row 3 is long"


def test_a_stage_with_nothing_to_do_is_not_shown():
    shown = []
    for bars in (None, lambda *stage: shown.append(stage)):
        sight = Sight(bars)
        sight.watch.stage("verify", 0, 0)
        sight.wait(SILENCE + 1)
        assert [line for _, line in sight.lines] == ["starting, 25 s since"]
    assert not shown


def test_a_stage_of_the_same_name_begins_anew():
    sight = Sight()
    for _ in range(2):
        for done in range(4):
            sight.watch.stage("look", done, 3)
            sight.now += 10
    assert [line for _, line in sight.lines].count("look 0/3") == 2
    assert "left" not in sight.lines[5][1]


def test_a_bar_moves_inside_a_caption_and_lines_come_between_stages():
    shown = []
    sight = Sight(lambda stage, part, ahead: shown.append((str(stage), round(part, 2), ahead)))
    sight.wait(40)
    assert sight.last == "starting, 25 s since"
    for done in range(3):
        sight.watch.stage("verify", done, 4)
        if done < 2:
            sight.watch.passed(100)
            sight.wait(50)
    sight.watch.passed(25)
    sight.wait(1)
    assert shown[50] == ("verify 0/4", 0, "50 s and 100 evaluations since the last")
    assert shown[-1] == ("verify 2/4", 0.25, "at most about 88 s left")
    assert len(sight.lines) == 1
    sight.watch.stage("verify", 4, 4)
    sight.wait(SILENCE - 1)
    assert len(sight.lines) == 1


def test_the_other_thread_looks_and_ends_with_the_command(monkeypatch):
    looked = threading.Event()
    monkeypatch.setattr(_progress, "TICK", 0.001)
    monkeypatch.setattr(Watch, "tick", lambda self: looked.set())
    before = threading.active_count()

    def fails() -> None:
        with watching(Console(file=io.StringIO()), print, print):
            assert looked.wait(10)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert threading.active_count() == before
