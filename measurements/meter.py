"""What passes a model's denoiser, put down to the stages and captions of an audit.

    with metered(model) as meter:
        findnemo.score(model, "a red star")
        meter.take()  # {"evaluations": 10, "seconds": ...}

Evaluations are latents that passed the denoiser, whoever called it; a gradient that is taken back
counts two more for each. Seconds are those of the clock on a GPU, once it is done; on a CPU those
of the processor, which other processes change little: measure on one thread.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import torch

from findnemo import Model
from findnemo.runs import Run

STAGES = ("detect", "localize", "verify")  # what is done for a caption

Row = dict[str, Any]


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(model: Model) -> str:
    """The day, the machine and the model of a measurement, for its head."""
    return (
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, {model.device},"
        f" {model.dtype}, {model.source}"
    )


class Meter:
    """Evaluations and seconds since they were taken last.

    Latents are counted as they pass the denoiser, whoever calls it; a gradient that is taken back
    through a pass counts two more for each.
    """

    def __init__(self, model: Model):
        self.model = model
        self.evaluations = 0
        self.seconds = 0.0
        self.since = self._now()

    def take(self) -> Row:
        """What was spent, as a row; the meter begins anew."""
        self.pause()
        spent = {"evaluations": self.evaluations, "seconds": self.seconds}
        self.evaluations, self.seconds = 0, 0.0
        return spent

    def pause(self) -> None:
        """What passes until `go` costs no seconds."""
        now = self._now()
        self.seconds += now - self.since
        self.since = now

    def go(self) -> None:
        self.since = self._now()

    def _now(self) -> float:
        wait(self.model.device)
        return time.perf_counter() if self.model.device.type == "cuda" else time.process_time()

    def count(self, module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """The hook on the denoiser."""
        latents = len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states")))
        self.evaluations += latents
        given = output if isinstance(output, torch.Tensor) else output[0]
        if given.requires_grad:
            given.register_hook(lambda gradient: self.back(latents))

    def back(self, latents: int) -> None:
        """A gradient was taken back through so many latents' pass."""
        self.evaluations += 2 * latents


@contextmanager
def metered(model: Model) -> Iterator[Meter]:
    """A meter on a model while the context lasts."""
    meter = Meter(model)
    handle = model.denoiser.register_forward_hook(meter.count, with_kwargs=True)
    try:
        yield meter
    finally:
        handle.remove()


class Stages:
    """Puts what an audit spends down to its stages and captions, as it reports progress.

    What was spent since the last report is that of the captions of which the run has an answer
    since then, in shares of their own evaluations where answers name these. What was spent between
    two stages is that of no caption.
    """

    def __init__(self, meter: Meter, run: Path, note: Callable[[Row], None]):
        self.meter = meter
        self.run = run
        self.note = note
        self.stage = "start"
        self.known: set[int] = set()

    def __call__(self, stage: str, *progress: Any) -> None:
        self.meter.pause()
        if stage != self.stage:
            between = {"localize": "scan"}.get(stage, stage)
            self.put(self.stage if self.stage not in STAGES else between)
            self.stage = stage
            self.known = self._answered()
        elif new := self._answered() - self.known:
            self.put(stage, self._shares(new))
            self.known |= new
        self.meter.go()

    def put(self, stage: str, shares: Mapping[str, float] | None = None) -> None:
        """Note what was spent: of all captions together, or in shares."""
        taken = self.meter.take()
        for caption, share in (shares or {None: 1.0}).items():
            part = {unit: share * value for unit, value in taken.items()}
            self.note({"stage": stage, "caption": caption} | part)

    def _answered(self) -> set[int]:
        if self.stage not in STAGES:
            return set()
        with Run.open(self.run) as run:
            return run.done(self.stage)

    def _shares(self, ids: set[int]) -> dict[str, float]:
        with Run.open(self.run) as run:
            found = list(run.captions(sorted(ids)))
        own = [one.results[self.stage].get("evaluations", 0) for one in found]
        weights = own if all(own) else [1] * len(found)
        return {one.text: weight / sum(weights) for one, weight in zip(found, weights, strict=True)}


def spent(notes: Iterable[Row], stage: str, caption: str | None) -> Row:
    """Sum of what was noted of a stage and a caption."""
    chosen = [n for n in notes if n["stage"] == stage and n["caption"] == caption]
    return {key: round(sum(n[key] for n in chosen), 4) for key in ("evaluations", "seconds")}


def read(file: Path) -> list[Row]:
    """Rows of a file, without one that was cut off."""
    rows = []
    for line in file.read_text(encoding="utf-8").split("\n") if file.exists() else ():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def append(file: Path, row: Row) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write("\n" + json.dumps(row, ensure_ascii=False))
