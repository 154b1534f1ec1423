"""Who answers: the dispatch policy, a pool of one, and what a pool of many (`cluster`) has to be.

    dispatch = Dispatch(units, count, pool.size, pool.aim)
    for events in drive_together(pool, step, dispatch):
        commit(events)

A unit is what shares passes: its items are answered together, by whichever worker, so results do
not depend on who does what. A task is one or more units handed to a worker at once. A step is a
function that can be pickled: (model, items of a unit) -> answers. Only the driver writes.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from findnemo.errors import DeviceError, InputError
from findnemo.models._identity import Identity

# captions set aside in a row, with no answer in between, after which nothing more is tried
HOPELESS = 20
STRIKES = 3  # so often a worker must die over the same unit alone until the unit is to blame
AIM = 15.0  # seconds that a task of several units shall take
MOST = 256  # units in a task

Step = Callable[[Any, Sequence[Any]], list[Any]]


def never() -> bool:
    """The `stop` of work that nobody asks to stop."""
    return False


@dataclass(frozen=True, eq=False)
class Unit:
    """Items that are answered together, with shared passes.

    Two units with the same items are two.
    """

    items: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Task:
    """Units that a worker gets at once."""

    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    `results`, `seconds`: of every unit. `lost`: why its worker died over it.
    """

    task: Task
    results: tuple[list[Any], ...] = ()
    seconds: tuple[float, ...] = ()
    lost: str | None = None


@dataclass(frozen=True)
class Event:
    """What became of a unit: its answers after `seconds`, or the reason
    for which it was set aside.
    """

    unit: Unit
    answers: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    aside: str | None = None


class Pool(Protocol):
    """What `drive` asks of workers.

    `model`: the model, or facts of it. `size`: how many workers there shall be. `aim`: seconds of a
    task, 0 for one unit at a time.
    """

    model: Any
    size: int
    aim: float

    def room(self) -> int:
        """How many tasks can be taken now. That it is bounded keeps memory constant."""

    def submit(self, step: Step, task: Task) -> None:
        """Take a task; only where there is room."""

    def wait(self) -> list[Outcome]:
        """Wait until something happens, and say which tasks ended; none where a
        worker has only become ready.
        """


class Serial:
    """The pool of one: this process, with a model that it has loaded.

    What a step raises is raised.
    """

    size = 1
    aim = 0.0

    def __init__(self, model: Any):
        self.model = model
        self._taken: list[tuple[Step, Task]] = []

    def room(self) -> int:
        return 1 - len(self._taken)

    def submit(self, step: Step, task: Task) -> None:
        self._taken.append((step, task))

    def wait(self) -> list[Outcome]:
        taken = self._taken
        self._taken = []
        return [answered(self.model, step, task) for step, task in taken]


def answered(model: Any, step: Step, task: Task) -> Outcome:
    """A task done in this process, every unit timed."""
    results = []
    seconds = []
    for unit in task.units:
        began = time.monotonic()
        results.append(step(model, unit.items))
        seconds.append(time.monotonic() - began)
    return Outcome(task, tuple(results), tuple(seconds))


class Dispatch:
    """The policy: which units go into the next task, and what becomes of units whose worker died.

    Knows no clock and no workers.

    `units`: in the order in which they shall be begun (longest first, where that is known); read
    only as they are handed out. `count`: how many there are, to hand out single ones at the end.
    `ahead`: no unit is begun more than so many after the first that is open.

    Tasks are sized by measured seconds: of as many units as take `aim` seconds, never more than
    half of an equal share of what is left. A task of several units whose worker died is given out
    again in single units, and a unit alone again. A unit over which STRIKES workers died alone is
    given out item by item; a single item is set aside.
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
        self._number: dict[Unit, int] = {}  # of the open units, in the order of their beginning
        self._begun = 0

    def take(self) -> Task | None:
        """The next task; None where there is nothing to begin now."""
        if self._again:
            return Task((self._again.popleft(),))
        units = []
        for _ in range(self.batch()):
            if self._too_far() or (unit := next(self._units, None)) is None:
                break
            units.append(unit)
            self._number[unit] = self._begun
            self._begun += 1
            self._left -= 1
        self._ended = not units and not self._too_far()
        return Task(tuple(units)) if units else None

    def batch(self) -> int:
        """Units of the next task."""
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
        """Take note of how a task ended; what became of its units, as far as that is known now."""
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
        """A worker has died over a unit alone."""
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
    """Have a pool do what a policy hands out, and tell what became of every
    unit, as it becomes known.

    Once `stop()` is true nothing more is begun; what is under way is waited for.
    """
    for events in drive_together(pool, step, dispatch, stop):
        yield from events


def drive_together(
    pool: Pool, step: Step, dispatch: Dispatch, stop: Callable[[], bool] = never
) -> Iterator[list[Event]]:
    """What became of every unit, as lists of what becomes known at one time, so that a driver can
    commit it in one transaction.

    Raises DeviceError where workers die over one caption after another, and none is answered in
    between.
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
    step: Step,
    item: Any,
    what: str,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Any:
    """The answer to a single item, a stage of its own named `what`.

    Raises DeviceError naming it where workers die over the item.
    """
    progress(what, 0, 1)
    (event,) = drive(pool, step, Dispatch([Unit((item,))], 1, 1))
    if event.aside:
        raise DeviceError(f"the {what} could not be done: {event.aside}")
    progress(what, 1, 1)
    return event.answers[0]


def in_order(pool: Pool, step: Step, items: Iterable[Any], ahead: int = 4) -> Iterator[Event]:
    """The answers to single items in their order, no more than `ahead` times as many begun or
    kept as there are workers.
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
    """What a driver without a model of its own knows of the one that its workers have loaded;
    it answers like a `Model`.
    """

    identity: Identity
    source: str
    options: dict[str, str]
    dtype: Any
    device: Any
    latent_shape: tuple[int, int, int]
    layers: dict[str, int]
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
            layers=model.widths(),
            every_layer=model.widths("all"),
            threads=torch.get_num_threads(),
        )

    @property
    def fingerprint(self) -> str:
        return self.identity.fingerprint

    @property
    def value_layers(self) -> dict[str, int]:
        return self.layers

    def widths(self, scope: str = "paper") -> dict[str, int]:
        return dict(self.every_layer if scope == "all" else self.layers)


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

        model = load(self.source, self.device, self.dtype, channels_last=True, **self.options)
        return compiled(model) if self.compile else model
