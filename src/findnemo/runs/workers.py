"""Distribute work: the dispatch policy, a pool of one process, and the interface of larger pools
(`cluster`).

    dispatch = Dispatch(units, count, pool.size, pool.aim)
    for events in drive_together(pool, step, dispatch):
        commit(events)

The items of a unit share passes: one worker answers them together, so results do not depend on who
does what. A task is one or more units handed to a worker at once. A step is a picklable function:
(model, items of a unit) -> answers. Only the driver writes.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from findnemo.errors import DeviceError, InputError
from findnemo.models.identity import Identity

# after this many captions set aside in a row, without an answer in between, work ends
HOPELESS = 20
STRIKES = 3  # after this many deaths of workers over a unit alone, the unit is to blame
AIM = 15.0  # seconds that a task of several units should take
MOST = 256  # units in a task

Step = Callable[[Any, Sequence[Any]], list[Any]]


def never() -> bool:
    """A `stop` that never asks to stop."""
    return False


@dataclass(frozen=True, eq=False)
class Unit:
    """Items that are answered together, in shared passes.

    Units are compared by identity: two units with the same items differ.
    """

    items: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class WorkerTask:
    """Units handed to a worker at once."""

    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    `results`, `seconds`: of every unit. `lost`: why its worker died, if it did.
    """

    task: WorkerTask
    results: tuple[list[Any], ...] = ()
    seconds: tuple[float, ...] = ()
    lost: str | None = None


@dataclass(frozen=True)
class Event:
    """The result of a unit: its answers after `seconds`, or the reason why it was set aside."""

    unit: Unit
    answers: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    aside: str | None = None


class Pool(Protocol):
    """The interface of workers that `drive` uses.

    `model`: the model, or facts about it. `size`: number of workers. `aim`: intended seconds of a
    task, 0 for one unit at a time.
    """

    model: Any
    size: int
    aim: float

    def room(self) -> int:
        """How many tasks the pool can take now; the bound keeps memory constant."""

    def submit(self, step: Step, task: WorkerTask) -> None:
        """Take a task; only if there is room."""

    def wait(self) -> list[Outcome]:
        """Wait for an event; return the tasks that ended, none if a worker has only become
        ready.
        """


class Serial:
    """The pool of one: this process, with a model that it has loaded.

    It raises what a step raises.
    """

    size = 1
    aim = 0.0

    def __init__(self, model: Any):
        self.model = model
        self._taken: list[tuple[Step, WorkerTask]] = []

    def room(self) -> int:
        return 1 - len(self._taken)

    def submit(self, step: Step, task: WorkerTask) -> None:
        self._taken.append((step, task))

    def wait(self) -> list[Outcome]:
        taken = self._taken
        self._taken = []
        return [do_task(self.model, step, task) for step, task in taken]


def do_task(model: Any, step: Step, task: WorkerTask) -> Outcome:
    """Do a task in this process, and time every unit."""
    results = []
    seconds = []
    for unit in task.units:
        began = time.monotonic()
        results.append(step(model, unit.items))
        seconds.append(time.monotonic() - began)
    return Outcome(task, tuple(results), tuple(seconds))


class Dispatch:
    """The policy: which units go into the next task, and what happens to units whose worker died.

    It knows no clock and no workers. It is written here, for Ray restarts a worker that died, and
    knows nothing of the caption that killed it.

    `units`: in the order in which to begin them (longest first, if known); read only as they are
    handed out. `count`: their number, so that the last ones are handed out singly. `ahead`: no unit
    is begun more than this many units after the first open one.

    Task sizes follow measured seconds: as many units as take `aim` seconds, but never more than
    half of an equal share of what remains. If a worker dies over a task of several units, they are
    handed out again singly. A unit over which STRIKES workers died alone is handed out item by
    item. A single item is then set aside.
    """

    def __init__(
        self,
        units: Iterable[Unit],
        count: int,
        workers: int,
        aim: float = AIM,
        ahead: int | None = None,
    ):
        self._units = iter(units)
        self._left = count
        self._workers = workers
        self._aim = aim
        self._ahead = ahead
        self._again: deque[Unit] = deque()
        self._mean = 0.0
        self._ended = False
        self._strikes: Counter[Unit] = Counter()
        self._number: dict[Unit, int] = {}  # open units in order of their beginning -> number
        self._begun = 0

    def take(self) -> WorkerTask | None:
        """The next task; None if nothing can be begun now."""
        if self._again:
            return WorkerTask((self._again.popleft(),))
        units = []
        for _ in range(self.batch()):
            if self._too_far() or (unit := next(self._units, None)) is None:
                break
            units.append(unit)
            self._number[unit] = self._begun
            self._begun += 1
            self._left -= 1
        self._ended = not units and not self._too_far()
        return WorkerTask(tuple(units)) if units else None

    def batch(self) -> int:
        """Number of units in the next task."""
        if not self._aim or not self._mean:
            return 1
        share = self._left // (2 * self._workers)
        return max(1, min(int(self._aim / self._mean), share, MOST))

    def _too_far(self) -> bool:
        return (
            self._ahead is not None
            and bool(self._number)
            and self._begun - min(self._number.values()) >= self._ahead
        )

    @property
    def empty(self) -> bool:
        """Whether nothing is left to begin."""
        return self._ended and not self._again

    def settle(self, outcome: Outcome) -> list[Event]:
        """Record how a task ended; return what is now known about its units."""
        task = outcome.task
        if outcome.lost is None:
            of_units = zip(task.units, outcome.results, outcome.seconds, strict=True)
            return [self._answered(*one) for one in of_units]
        if len(task.units) > 1:
            self._again.extend(task.units)
            return []
        return self._lost(task.units[0], outcome.lost)

    def _answered(self, unit: Unit, answers: list[Any], seconds: float) -> Event:
        self._mean = 0.8 * self._mean + 0.2 * seconds if self._mean else seconds
        self._strikes.pop(unit, None)
        del self._number[unit]
        return Event(unit, answers, seconds)

    def _lost(self, unit: Unit, why: str) -> list[Event]:
        """Handle a worker's death over a single unit."""
        self._strikes[unit] += 1
        if self._strikes[unit] < STRIKES:
            self._again.append(unit)
            return []
        del self._strikes[unit]
        number = self._number.pop(unit)
        if len(unit.items) == 1:
            reason = f"set aside: {STRIKES} workers died over it alone ({why})"
            return [Event(unit, aside=reason)]
        singles = [Unit((item,)) for item in unit.items]
        self._number |= dict.fromkeys(singles, number)
        self._again.extend(singles)
        return []


def drive(
    pool: Pool, step: Step, dispatch: Dispatch, stop: Callable[[], bool] = never
) -> Iterator[Event]:
    """Have a pool do what a policy hands out; yield an event for every unit as its result becomes
    known.

    Once `stop()` returns True nothing more is begun; work in progress is awaited.
    """
    for events in drive_together(pool, step, dispatch, stop):
        yield from events


def drive_together(
    pool: Pool, step: Step, dispatch: Dispatch, stop: Callable[[], bool] = never
) -> Iterator[list[Event]]:
    """Hand the units of a dispatch to the workers of a pool until none is left or `stop()`, and
    yield lists of the events that become known together, to commit in one transaction.

    Raises DeviceError if workers die over one caption after another, without any answer in between.
    """
    flying = 0
    in_vain = 0
    while True:
        while pool.room() and not stop() and (task := dispatch.take()) is not None:
            pool.submit(step, task)
            flying += 1
        if not flying and (stop() or dispatch.empty):
            return
        outcomes = pool.wait()
        flying -= len(outcomes)
        if events := [event for outcome in outcomes for event in dispatch.settle(outcome)]:
            in_vain = 0 if any(not event.aside for event in events) else in_vain + len(events)
            yield events
        if in_vain >= HOPELESS:
            raise DeviceError(
                f"the last {in_vain} captions were all set aside, but they are not the cause"
                f" ({events[-1].aside})"
            )


def answer_of(
    pool: Pool,
    do: Callable[[Any, Any], Any],
    item: Any,
    what: str,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Any:
    """`do(model, item)`, computed by a worker as a stage named `what`.

    Raises DeviceError naming it if workers die over the item.
    """
    progress(what, 0, 1)
    step = partial(_each, do=do)
    (event,) = drive(pool, step, Dispatch([Unit((item,))], 1, 1))
    if event.aside:
        raise DeviceError(f"the {what} could not be done: {event.aside}")
    progress(what, 1, 1)
    return event.answers[0]


def _each(model: Any, items: Sequence[Any], do: Callable[[Any, Any], Any]) -> list[Any]:
    return [do(model, item) for item in items]


def in_order(pool: Pool, step: Step, items: Iterable[Any], ahead: int = 4) -> Iterator[Event]:
    """The answers to single items, in order.

    At most `ahead` times as many items as there are workers are begun or kept.
    """
    number: dict[Unit, int] = {}
    kept: dict[int, Event] = {}
    following = 0

    def units() -> Iterator[Unit]:
        for k, item in enumerate(items):
            unit = Unit((item,))
            number[unit] = k
            yield unit

    dispatch = Dispatch(units(), 0, pool.size, 0.0, 1 if pool.size == 1 else ahead * pool.size)
    for event in drive(pool, step, dispatch):
        kept[number.pop(event.unit)] = event
        while following in kept:
            yield kept.pop(following)
            following += 1


@dataclass(frozen=True)
class Facts:
    """What a driver without a model knows about the model of its workers; it answers like a
    `Model`.
    """

    identity: Identity
    source: str
    options: dict[str, str]
    dtype: Any
    device: Any
    latent_shape: tuple[int, int, int]
    value_layers: dict[str, int]
    every_layer: dict[str, int]
    samplers: dict[str, str] = field(default_factory=dict)
    readers: tuple[Any, ...] = ()
    told: set[str] = field(default_factory=set)
    threads: int = 1

    @classmethod
    def of(cls, model: Any) -> Facts:
        import torch

        copied = ("identity", "source", "options", "dtype", "device", "latent_shape")
        return cls(
            **{name: getattr(model, name) for name in (*copied, "samplers", "readers")},
            value_layers=model.widths(),
            every_layer=model.widths("all"),
            threads=torch.get_num_threads(),
        )

    @property
    def fingerprint(self) -> str:
        return self.identity.fingerprint

    def widths(self, scope: str = "paper") -> dict[str, int]:
        return dict(self.every_layer if scope == "all" else self.value_layers)


@dataclass(frozen=True)
class Loader:
    """How a worker opens its model; see `findnemo.load`.

    A live pipeline cannot be sent to another process.
    """

    source: str
    device: str | None = None
    dtype: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    compile: bool = False

    @classmethod
    def of(cls, model: Any) -> Loader:
        """How to open a model again that was loaded from a place.

        Raises InputError for a live pipeline.
        """
        if model.source.startswith("live "):
            raise InputError(
                f"a {model.source} cannot be sent to other processes: save it (save_pretrained) and"
                " give workers the directory"
            )
        return cls(
            model.source,
            str(model.device.type),
            str(model.dtype).removeprefix("torch."),
            model.options,
        )

    def load(self) -> Any:
        from findnemo.models import load
        from findnemo.passes.engine import compiled

        model = load(self.source, self.device, self.dtype, **self.options)
        return compiled(model) if self.compile else model
