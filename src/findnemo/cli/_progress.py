"""Progress of a command in a terminal or a log: which stage, how far, and how long it will still
take.

A log gets a line at about every tenth of a stage, and whenever nothing was written for `SILENCE`
seconds, even during a single caption. A terminal gets a bar that also moves within a caption; lines
appear only between stages.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from findnemo.runtime.notices import lasting

SILENCE = 25.0  # seconds after which a line is due
TICK = 1.0  # seconds between two checks whether one is due
WINDOW = 60.0  # seconds of recent pieces that give the rate of a stage
LEAST = 8  # least number of points for a rate
BURST = 0.5  # seconds: pieces finished within them are one point
# stages with the longest pieces first, so that the rest takes less time than the part done
LONGEST_FIRST = ("localize", "verify")

Tell = Callable[[str], None]


class StageProgress:
    """A stage in progress: how far it is, and its rate over the latest pieces.

    The first piece only starts the clock, because its time includes loading and warming up.
    `passed`: latents that went through the denoiser. They show how much of a piece is done, once
    the first piece has shown how many it takes.
    """

    def __init__(self, name: str, done: int, total: int, now: float, passed: int):
        self.name = name
        self.total = total
        self.done = done
        self._began = (done, passed)
        self._last = (now, passed)
        self._points: deque[tuple[float, int]] = deque()

    def step(self, done: int, now: float, passed: int) -> None:
        """Record that `done` pieces are done now."""
        self.done = done
        self._last = (now, passed)
        points = self._points
        if points and now - points[-1][0] < BURST:
            points[-1] = (points[-1][0], done)
        else:
            points.append((now, done))
        while len(points) > LEAST and now - points[1][0] > WINDOW:
            points.popleft()

    @property
    def open(self) -> bool:
        return self.done < self.total

    @property
    def seconds(self) -> float | None:
        """Seconds for a piece; None before there is a rate."""
        if not self._points:
            return None
        (began, first), (ended, last) = self._points[0], self._points[-1]
        return (ended - began) / (last - first) if last > first else None

    def part(self, now: float, passed: int) -> float:
        """How much of the current piece is done, 0 to 1, by latents or else by time."""
        since, before = self._last
        done = self.done - self._began[0]
        latents = before - self._began[1]
        if not self.open:
            return 0.0
        if done and latents:
            return min((passed - before) * done / latents, 1.0)
        return min((now - since) / self.seconds, 1.0) if self.seconds else 0.0

    def left(self, now: float, passed: int) -> float | None:
        """Seconds until the stage ends; None before there is a rate, and at the end."""
        if self.seconds is None or not self.open:
            return None
        return self.seconds * (self.total - self.done - self.part(now, passed))

    def ahead(self, now: float, passed: int) -> str:
        """The remaining time in words; empty if unknown."""
        if (left := self.left(now, passed)) is None:
            return ""
        at_most = "at most " if self.name in LONGEST_FIRST else ""
        return f"{at_most}about {lasting(left)} left"

    def at_it(self, now: float, passed: int) -> str:
        """How long ago the last piece was finished, and how much was computed since."""
        since, before = self._last
        computed = f" and {passed - before:,} evaluations" if passed > before else ""
        return f"{lasting(now - since)}{computed} since the last"

    def __str__(self) -> str:
        return f"{self.name} {self.done}/{self.total}"


class Watch:
    """The current stage, and the lines that report it.

    `tell`, `warn`: write a line. `bars`: in a terminal, shows a stage, the finished part of its
    next piece, and a note; None in a log. `clock`: seconds. Whoever works calls `stage`, `said`,
    `warned` and `passed`; another thread calls `tick` about every second.
    """

    def __init__(
        self,
        tell: Tell,
        warn: Tell,
        bars: Callable[[StageProgress, float, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._tell = tell
        self._warn = warn
        self._bars = bars
        self._clock = clock
        self._latents = 0
        self._stage: StageProgress | None = None
        self._doing = "starting"
        self._began = self._printed = clock()
        self._tenth = -1
        self._lock = threading.RLock()

    def passed(self, latents: int) -> None:
        """Record that more latents went into the denoiser."""
        self._latents += latents

    def said(self, text: str) -> None:
        """Write a line about what begins."""
        with self._lock:
            self._tell(text)
            self._doing = text
            self._began = self._printed = self._clock()

    def warned(self, text: str) -> None:
        """Write a line about what a user should know."""
        with self._lock:
            self._warn(text)
            self._printed = self._clock()

    def stage(self, name: str, done: int, total: int) -> None:
        """Record how many pieces of a stage are done. A stage without pieces is not shown."""
        if not total:
            return
        with self._lock:
            now = self._clock()
            stage = self._stage
            if stage is None or (stage.name, stage.total) != (name, total) or done < stage.done:
                self._stage = stage = StageProgress(name, done, total, now, self._latents)
                self._tenth = -1
            else:
                stage.step(done, now, self._latents)
            self._doing = f"{stage} done"
            self._began = now
            if self._bars is not None:
                self._show(stage, now)
            elif self._tenth != (tenth := 10 * done // total):
                self._tenth = tenth
                self._line(stage, stage.ahead(now, self._latents))

    def tick(self) -> None:
        """Write a line if one is due, or move the bar."""
        with self._lock:
            now = self._clock()
            stage = self._stage if self._stage is not None and self._stage.open else None
            if stage is not None and self._bars is not None:
                self._show(stage, now)
            elif now - self._printed < SILENCE:
                return
            elif stage is not None:
                at_it, ahead = (said(now, self._latents) for said in (stage.at_it, stage.ahead))
                self._line(stage, at_it, ahead)
            else:
                self._line(self._doing, f"{lasting(now - self._began)} since")

    def _show(self, stage: StageProgress, now: float) -> None:
        assert self._bars is not None
        at_it = stage.at_it(now, self._latents) if stage.open else ""
        note = stage.ahead(now, self._latents) or at_it  # before there is a rate
        self._bars(stage, stage.part(now, self._latents), note)
        self._printed = now

    def _line(self, *words: object) -> None:
        self._tell(", ".join(str(word) for word in words if str(word)))
        self._printed = self._clock()


@contextmanager
def watching(console: Console, tell: Tell, warn: Tell) -> Iterator[Watch]:
    """A watch that shows bars if the console is a terminal, lines otherwise."""
    if not console.is_terminal:
        with _ticking(Watch(tell, warn)) as watch:
            yield watch
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, Any] = {}

        def bars(stage: StageProgress, part: float, note: str) -> None:
            if stage.name not in tasks:
                tasks[stage.name] = progress.add_task(stage.name, total=stage.total, note="")
            progress.update(
                tasks[stage.name],
                completed=stage.done + min(part, 0.99),
                total=stage.total,
                note=note,
            )

        with _ticking(Watch(tell, warn, bars)) as watch:
            yield watch


@contextmanager
def _ticking(watch: Watch) -> Iterator[Watch]:
    """Let another thread call `tick` while the context lasts: the main thread is busy."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK):
            watch.tick()

    thread = threading.Thread(target=tick, name="findnemo progress", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
