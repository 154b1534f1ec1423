"""What a person sees while a command works, in a terminal and in a log: which stage, how far, and
how long it will still take. This one place decides it.

A log gets a line at about every tenth of a stage, and one whenever nothing was written for
`SILENCE` seconds, also while a single caption takes longer. A terminal gets a bar that moves inside
a caption, and those lines only between stages.
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
TICK = 1.0  # seconds between two looks at whether one is
WINDOW = 60.0  # seconds whose pieces tell how fast a stage is,
LEAST = 8  # and at least so many points
BURST = 0.5  # seconds: pieces that become known together are one point
# stages that begin with what takes longest, so that what is left takes less than what was done
LONGEST_FIRST = ("localize", "verify")

Tell = Callable[[str], None]


class Stage:
    """A stage under way: how far it is, and how fast by its latest pieces.

    The first piece only starts the clock. What it took is no measure: loading and warming up are
    in it. `passed`: latents that have gone through the denoiser. They tell how much of a piece is
    done, once a first one has shown how many it takes.
    """

    def __init__(self, name: str, done: int, total: int, now: float, passed: int):
        self.name = name
        self.total = total
        self.done = done
        self._began = (done, passed)
        self._last = (now, passed)
        self._points: deque[tuple[float, int]] = deque()

    def step(self, done: int, now: float, passed: int) -> None:
        """So many pieces are done now."""
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
        """What a piece takes; None before there is a rate."""
        if not self._points:
            return None
        (began, first), (ended, last) = self._points[0], self._points[-1]
        return (ended - began) / (last - first) if last > first else None

    def part(self, now: float, passed: int) -> float:
        """How much of the piece under way is done, 0 to 1: by latents, else by time."""
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
        """The time left in words; empty where nothing can be said."""
        if (left := self.left(now, passed)) is None:
            return ""
        at_most = "at most " if self.name in LONGEST_FIRST else ""
        return f"{at_most}about {lasting(left)} left"

    def at_it(self, now: float, passed: int) -> str:
        """How long ago the last piece was done, and how much was computed since."""
        since, before = self._last
        computed = f" and {passed - before:,} evaluations" if passed > before else ""
        return f"{lasting(now - since)}{computed} since"

    def __str__(self) -> str:
        return f"{self.name} {self.done}/{self.total}"


class Watch:
    """What is being done, and the lines that say so.

    `tell`, `warn`: write a line. `bars`: shows a stage, the part of its next piece that is done, and
    a note, as in a terminal; None in a log. `clock`: seconds. `stage`, `said`, `warned` and `passed` are called by whoever works, `tick` by another
    thread, about every second.
    """

    def __init__(
        self,
        tell: Tell,
        warn: Tell,
        bars: Callable[[Stage, float, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._tell = tell
        self._warn = warn
        self._bars = bars
        self._clock = clock
        self._latents = 0
        self._stage: Stage | None = None
        self._doing = "starting"
        self._began = self._printed = clock()
        self._tenth = -1
        self._lock = threading.RLock()

    def passed(self, latents: int) -> None:
        """So many more latents have gone into the denoiser."""
        self._latents += latents

    def said(self, text: str) -> None:
        """A line about what begins."""
        with self._lock:
            self._tell(text)
            self._doing = text
            self._began = self._printed = self._clock()

    def warned(self, text: str) -> None:
        """A line about what a user should know."""
        with self._lock:
            self._warn(text)
            self._printed = self._clock()

    def stage(self, name: str, done: int, total: int) -> None:
        """So many pieces of a stage are done."""
        with self._lock:
            now = self._clock()
            stage = self._stage
            if stage is None or (stage.name, stage.total) != (name, total) or done < stage.done:
                self._stage = stage = Stage(name, done, total, now, self._latents)
                self._tenth = -1
            else:
                stage.step(done, now, self._latents)
            self._doing = f"{stage} done"
            self._began = now
            if self._bars is not None:
                self._show(stage, now)
            elif total and self._tenth != (tenth := 10 * done // total):
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

    def _show(self, stage: Stage, now: float) -> None:
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
    """A watch over what a command does: with bars where the console is a terminal, lines elsewhere."""
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

        def bars(stage: Stage, part: float, note: str) -> None:
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
    """Have another thread look after a watch while the context lasts: the main one is busy."""
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
