"""Many workers on paper: 1, 8, 64 and 512 of them under the very policy of `findnemo audit
--workers`, with measured times, and failures.

    python measurements/scale.py --run findnemo-demo
    python measurements/scale.py --run findnemo-demo --captions 200000 --evaluation 0.005 --mtbf 3600

Simulated are the workers alone, on a clock that jumps from event to event: what is handed out, and
what becomes of it when a worker dies, is decided by `findnemo.runs.workers.Dispatch` and `drive`.
How much captions differ is drawn from a finished run, how long they take in the mean is told by
`--evaluation`, the seconds of a U-Net evaluation; what the driver needs for an answer is measured
first, in a run directory on this disk.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findnemo.files.writing import write_all
from findnemo.prompts import Prompt
from findnemo.runs import Dispatch, Outcome, Run, Unit, WorkerTask, drive
from findnemo.runs.workers import AIM, MOST

WORKERS = (1, 8, 64, 512)
PUBLISHED = 0.021  # seconds: ten noise differences in .21 s (Finding NeMo, appendix: V100 and A100)
EVALUATIONS = {
    "detect": 9.6,
    "localize": 30.0,
    "verify": 860.0,
}  # the last: 8 images of 50 steps under guidance, and 60 noise differences
# of an answer of `verify`: 8 images, 8 noise differences, the training image, the sheet
FILES = 18
BYTES = 400_000


@dataclass
class Hand:
    """A worker on paper: the task under way, and how often it was started again."""

    task: WorkerTask | None = None
    life: int = 0


class SimulatedPool:
    """Workers whose time passes on a clock of their own; see `findnemo.runs.workers.Pool`.

    An item is its seconds.

    `mtbf`: mean seconds until a worker dies of its own accord; `restart`: seconds until another has
    loaded its model; `driver`: seconds that the driver takes for an answer, in which it hands out
    nothing.
    """

    model = None
    aim = AIM

    def __init__(self, size: int, mtbf: float, restart: float, driver: float, seed: int = 0):
        self.size = size
        self.mtbf = mtbf
        self.restart = restart
        self.driver = driver
        self.now = self.worked = self.drove = 0.0
        self.deaths = 0
        self._count = 0
        self._chance = random.Random(seed)
        self._hands = [Hand() for _ in range(size)]
        self._free: set[int] = set()
        self._events: list[tuple[float, int, int, int, str]] = []
        for worker in range(size):
            self._at(restart, worker, 0, "_ready")

    def room(self) -> int:
        return len(self._free)

    def submit(self, step: Any, task: WorkerTask) -> None:
        worker = self._free.pop()
        hand = self._hands[worker]
        hand.task = task
        seconds = sum(sum(unit.items) for unit in task.units)
        self._at(self.now + seconds, worker, hand.life, "_done")

    def wait(self) -> list[Outcome]:
        """The next event; one that came while the driver was writing has waited for it."""
        at, _, worker, life, what = heapq.heappop(self._events)
        if life != self._hands[worker].life:
            return []  # of a process that has died since
        self.now = max(self.now, at)
        found: list[Outcome] = getattr(self, what)(worker, at)
        return found

    def _ready(self, worker: int, at: float) -> list[Outcome]:
        life = self._hands[worker].life
        self._at(at + self._chance.expovariate(1 / self.mtbf), worker, life, "_dies")
        self._free.add(worker)
        return []

    def _done(self, worker: int, at: float) -> list[Outcome]:
        task = self._end(worker)
        self._free.add(worker)
        seconds = tuple(sum(unit.items) for unit in task.units)
        cost = self.driver * sum(len(unit.items) for unit in task.units)
        self.worked += sum(seconds)
        self.drove += cost
        self.now += cost
        return [Outcome(task, tuple([[]] * len(unit.items) for unit in task.units), seconds)]

    def _dies(self, worker: int, at: float) -> list[Outcome]:
        task = self._end(worker)
        self._free.discard(worker)
        self._hands[worker].life += 1
        self.deaths += 1
        self._at(at + self.restart, worker, self._hands[worker].life, "_ready")
        return [] if task is None else [Outcome(task, lost="killed")]

    def _end(self, worker: int) -> WorkerTask | None:
        """The task that a worker had, which it has no more."""
        task = self._hands[worker].task
        self._hands[worker].task = None
        return task

    def _at(self, when: float, worker: int, life: int, what: str) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, worker, life, what))


def drawn(run: Path, stage: str, count: int, mean: float, chance: random.Random) -> list[float]:
    """Seconds of `count` captions with this mean, as unlike each other as
    those of a finished run.
    """
    with sqlite3.connect(run / "run.sqlite") as db:
        known = [
            row[0]
            for row in db.execute(
                "SELECT seconds FROM results WHERE stage = ? AND status = 'done'", (stage,)
            )
        ]
    scale = mean / statistics.mean(known)
    return [chance.choice(known) * scale for _ in range(count)]


def driver_seconds(answers: int, together: int, files: int = 0) -> float:
    """What an answer takes to be written and committed, with so many others of its task, in a
    run directory on this disk.
    """
    payload = {
        "prompt": "a caption of usual length",
        "score": 0.5,
        "tau": 0.4,
        "memorized": False,
        "evaluations": 10,
        "samples": 10,
    }
    content = bytes(BYTES // max(files, 1))
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        Run.create(Path(folder) / "run", {}) as run,
    ):
        ids = run.add(Prompt(f"caption {k}", k) for k in range(answers))
        began = time.perf_counter()
        for start in range(0, answers, together):
            part = ids[start : start + together]
            write_all(
                {
                    run.path / "images" / str(caption) / f"{k}.png": content
                    for caption in part
                    for k in range(files)
                }
            )
            run.record_all((caption, "stage", payload, 0.1, None) for caption in part)
        return (time.perf_counter() - began) / answers


def simulate(pool: SimulatedPool, seconds: Sequence[float]) -> None:
    """A stage: as many captions as `seconds`, each alone (at Stable Diffusion's
    size none share passes).
    """
    answered = 0
    dispatch = Dispatch((Unit((s,)) for s in seconds), len(seconds), pool.size, pool.aim)
    for event in drive(pool, lambda model, items: [], dispatch):
        answered += event.aside is None
    if answered != len(seconds):
        raise SystemExit(f"{answered} of {len(seconds)} captions answered: the rest was set aside")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="a finished run: how much captions differ"
    )
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument(
        "--memorized",
        type=float,
        default=0.001,
        help="share of captions that are localized and verified",
    )
    parser.add_argument(
        "--evaluation",
        type=float,
        default=PUBLISHED,
        help="seconds of a U-Net evaluation on one worker",
    )
    parser.add_argument(
        "--mtbf", type=float, default=6 * 3600.0, help="mean seconds until a worker dies"
    )
    parser.add_argument(
        "--restart", type=float, default=60.0, help="seconds until another has loaded its model"
    )
    parser.add_argument("--workers", type=int, nargs="*", default=WORKERS)
    args = parser.parse_args()
    chance = random.Random(0)
    means = {stage: n * args.evaluation for stage, n in EVALUATIONS.items()}
    together = {stage: max(1, min(MOST, int(AIM / mean))) for stage, mean in means.items()}
    cost = {
        stage: driver_seconds(50 if stage == "verify" else 2000, n, FILES * (stage == "verify"))
        for stage, n in together.items()
    }
    counts = {
        stage: args.captions if stage == "detect" else round(args.captions * args.memorized)
        for stage in EVALUATIONS
    }
    work = {
        stage: drawn(args.run, stage, counts[stage], means[stage], chance) for stage in EVALUATIONS
    }
    print(
        "| stage | captions | seconds a caption | worker hours | driver, ms an answer | driver is"
        " the limit from |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for stage, seconds in work.items():
        row = (
            f"{len(seconds):,}",
            f"{means[stage]:.2f}",
            f"{sum(seconds) / 3600:.1f}",
            f"{cost[stage] * 1e3:.2f}",
        )
        print(f"| {stage} | {' | '.join(row)} | {means[stage] / cost[stage]:.0f} workers |")
    print(
        f"\na worker dies every {args.mtbf / 3600:.1f} hours and is replaced after"
        f" {args.restart:.0f} seconds\n"
    )
    print("| workers | hours | efficiency | driver busy | deaths |\n|---:|---:|---:|---:|---:|")
    for workers in args.workers:
        pool = SimulatedPool(workers, args.mtbf, args.restart, 0.0)
        for stage, seconds in work.items():
            pool.driver = cost[stage]
            simulate(pool, seconds)
        busy = pool.worked / (workers * pool.now)
        driving = pool.drove / pool.now
        print(f"| {workers} | {pool.now / 3600:.2f} | {busy:.3f} | {driving:.3f} | {pool.deaths} |")


if __name__ == "__main__":
    main()
