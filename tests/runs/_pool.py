"""A pool in this process whose workers finish in a strange order and die when told to."""

from __future__ import annotations

import pickle
import random
from collections import Counter

from findnemo.runs.workers import Outcome, do_task


class FakePool:
    """`size` workers with a task each.

    `deadly`: item -> whether a worker dies over it; `deaths`: at random, so many.
    """

    def __init__(
        self, model, size=3, seed=0, deadly=lambda item: False, deaths=0, aim=0.0, send=True
    ):
        self.model = model
        self.size = size
        self.aim = aim
        self.deadly = deadly
        self.deaths = deaths
        self.send = send
        self.random = random.Random(seed)
        self.under_way = []
        self.flying = self.most = self.replaced = 0
        self.began = Counter()
        self.sizes = []

    def room(self):
        return self.size - len(self.under_way)

    def submit(self, step, task):
        self.under_way.append((pickle.loads(pickle.dumps(step)) if self.send else step, task))
        self.flying += sum(len(u.items) for u in task.units)
        self.most = max(self.most, self.flying)
        self.sizes.append(len(task.units))

    def wait(self):
        step, task = self.under_way.pop(self.random.randrange(len(self.under_way)))
        self.flying -= sum(len(u.items) for u in task.units)
        guilty = next(
            (item for unit in task.units for item in unit.items if self.deadly(item)), None
        )
        if guilty is not None or (self.deaths and self.random.random() < 0.4):
            self.deaths -= guilty is None
            self.replaced += 1
            return [Outcome(task, lost="killed")]
        return [do_task(self.model, step, task)]
