"""A pool in this process whose workers finish in a strange order and die when told to."""

from __future__ import annotations

import pickle
import random
from collections import Counter, deque

from findnemo.runs.workers import DEPTH, Outcome, answered


class FakePool:
    """`size` workers with queues like those of Ray. `deadly`: item -> whether a worker dies over it; `deaths`: at random, so many."""

    def __init__(
        self, model, size=3, seed=0, deadly=lambda item: False, deaths=0, aim=0.0, send=True
    ):
        self.model, self.size, self.aim, self.deadly, self.deaths, self.send = (
            model,
            size,
            aim,
            deadly,
            deaths,
            send,
        )
        self.random, self.queues = random.Random(seed), [deque() for _ in range(size)]
        self.flying = self.most = self.replaced = 0
        self.began, self.sizes = Counter(), []

    def room(self):
        return sum(DEPTH - len(q) for q in self.queues)

    def submit(self, step, task):
        min(self.queues, key=len).append(
            (pickle.loads(pickle.dumps(step)) if self.send else step, task)
        )
        self.flying += sum(len(u.items) for u in task.units)
        self.most = max(self.most, self.flying)
        self.sizes.append(len(task.units))

    def wait(self):
        queue = self.random.choice([q for q in self.queues if q])
        step, task = queue.popleft()
        self.flying -= sum(len(u.items) for u in task.units)
        guilty = next(
            (item for unit in task.units for item in unit.items if self.deadly(item)), None
        )
        if guilty is not None or (self.deaths and self.random.random() < 0.4):
            self.deaths -= guilty is None
            self.replaced += 1
            back = [Outcome(other) for _, other in queue]
            self.flying -= sum(len(u.items) for o in back for u in o.task.units)
            queue.clear()
            return [Outcome(task, lost="killed"), *back]
        return [answered(self.model, step, task)]
