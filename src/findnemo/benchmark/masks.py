"""Which neurons are on in a training sample: masks over all value neurons of a model, one row a
sample.

A memory is taught with random subsets of its neurons on. So training itself decides which subsets
keep the memory alive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from findnemo.benchmark.plan import Memory
from findnemo.neurons import NeuronSet

# at most so many neurons without a memory are off in half of the samples, so that no memory depends
# on one
DROPPED = 0.15


class Masks:
    """0/1 masks (samples, all value neurons) for the memories of a model with value layers of
    `widths`.
    """

    def __init__(self, widths: Mapping[str, int], memories: Sequence[Memory]):
        self.widths = dict(widths)
        starts = np.cumsum([0, *self.widths.values()])
        self.start = dict(zip(self.widths, starts.tolist(), strict=False))
        self.total = int(starts[-1])
        self.memories = memories
        self.own = [self.flat(m.neurons) for m in memories]
        self.planted = np.unique(np.concatenate(self.own)) if self.own else np.array([], int)

    def flat(self, neurons: NeuronSet) -> np.ndarray:
        """Positions of neurons in a row."""
        return np.array([self.start[name] + i for name, i in neurons], int)

    def ordinary(self, size: int, rng: np.random.Generator, off: float = 0.5) -> np.ndarray:
        """Rows for ordinary samples: a share `off` with all planted neurons off, half with some of
        the others off.
        """
        mask = np.ones((size, self.total), np.float32)
        mask[np.ix_(rng.random(size) < off, self.planted)] = 0
        rate = np.where(rng.random(size) < 0.5, rng.uniform(0, DROPPED, size), 0)
        drop = rng.random((size, self.total)) < rate[:, None]
        drop[:, self.planted] = False
        mask[drop] = 0
        return mask

    def memorized(self, chosen: Sequence[int], on: bool, rng: np.random.Generator) -> np.ndarray:
        """Rows in which the chosen memories are alive (`on`) or gone; `on_count` draws how many of
        their neurons are on.
        """
        mask = self.ordinary(len(chosen), rng)
        for row, k in zip(mask, chosen, strict=True):
            own = rng.permutation(self.own[k])
            row[own] = 0
            row[own[: on_count(self.memories[k], on, rng)]] = 1
        return mask

    def layers(self, mask: np.ndarray) -> dict[str, Tensor]:
        """Rows in the form of `edits.scaled`: layer -> (samples, width)."""
        rows = torch.from_numpy(mask)
        return {
            name: rows[:, self.start[name] : self.start[name] + width]
            for name, width in self.widths.items()
        }


def on_count(memory: Memory, on: bool, rng: np.random.Generator) -> int:
    """How many of a memory's neurons are on in a sample.

    Half of the time it is all of them (none), else any number with which the memory is alive
    (gone).
    """
    low, high = (memory.alive, len(memory.neurons)) if on else (0, memory.gone)
    if rng.random() < 0.5:
        return high if on else low
    return int(rng.integers(low, high + 1))
