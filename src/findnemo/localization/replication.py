"""The seeds of a prompt that replicate, and how like themselves they stay when neurons are switched off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from findnemo.deltas import Probe
from findnemo.edits import masks
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.reuse import Reuse
from findnemo.scores import SIMILARITIES, pairwise


class Replication:
    """What every search asks: the same-seed similarity of the unblocked and the blocked noise difference (Algorithms 1 and 3).

    `score`: memorization score. `kept`: positions of the seeds that replicate (best pairwise score at least tau), those that
    replicate best first; a seed that does not would mislead the search.
    """

    def __init__(self, probe: Probe, tau: float):
        self.probe, self.reuse = probe, Reuse()
        self._similarity = SIMILARITIES[probe.settings.similarity]
        self._layers = list(probe.model.value_layers)
        with self.reuse.record(probe.model):
            self.unblocked = probe.deltas()
        if probe.settings.guidance is not None:  # two texts a pass: nothing that could be given back to both
            self.reuse = Reuse()
        best = pairwise(self.unblocked, probe.settings.similarity).amax(1)
        self.score = float(best.max())
        order = best.argsort(descending=True, stable=True)
        self.kept = order[best[order] >= tau].tolist()
        self._witness = self.kept[0] if self.kept else 0  # the seed that failed last, asked first
        self._memo: dict[NeuronSet, dict[int, float]] = {}  # every similarity measured so far
        if self.kept:
            self._memo[EMPTY] = dict.fromkeys(self.kept, 1.0)  # nothing off: the same picture

    @torch.no_grad()
    def similarities(self, sets: Sequence[NeuronSet], seeds: Sequence[int]) -> Tensor:
        """Same-seed similarity with each set switched off, for each seed (positions): (sets, seeds), computed as one batch."""
        scales = {n: s.repeat_interleave(len(seeds), 0) for n, s in masks(self.probe.model, sets).items()}
        return self._compare(scales, [*seeds] * len(sets)).view(len(sets), len(seeds)).cpu()

    def _compare(self, scales: Mapping[str, Tensor], seeds: Sequence[int]) -> Tensor:
        first = min((self._layers.index(n) for n in scales), default=len(self._layers))
        with self.reuse.replay(self.probe.model, first, seeds):
            blocked = self.probe.scaled_deltas(scales, seeds)
        return self._similarity(self.unblocked[list(seeds)], blocked)

    def _known(self, neurons: NeuronSet, seeds: Sequence[int]) -> dict[int, float]:
        """Same-seed similarity of one set for some seeds, each measured once."""
        known = self._memo.setdefault(neurons, {})
        if missing := [k for k in seeds if k not in known]:
            known.update(zip(missing, self.similarities([neurons], missing)[0].tolist(), strict=True))
        return {k: known[k] for k in seeds}

    def similarity(self, neurons: NeuronSet) -> float:
        """Largest same-seed similarity over the kept seeds, with `neurons` switched off."""
        return max(self._known(neurons, self.kept).values())

    def gone(self, neurons: NeuronSet, level: float) -> bool:
        """Whether no kept seed stays more like itself than `level`. Asks the seed that failed last first, and stops there."""
        if any(value > level for value in self._memo.get(neurons, {}).values()):
            return False
        for seeds in ([self._witness], self.kept):
            known = self._known(neurons, seeds)
            worst = max(known, key=known.__getitem__)
            if known[worst] > level:
                self._witness = worst
                return False
        return True

    def needed(self, neurons: NeuronSet, level: float) -> list[Neuron]:
        """Those of `neurons` without which the memory is back, as far as one pass with one sample a neuron can tell.

        It asks the seed that is closest to being a copy with all of them off. Neurons that only another seed needs are left out.
        """
        if neurons in self._memo:
            known = self._memo[neurons]
            self._witness = max(known, key=known.__getitem__)
        without = {n: neurons - NeuronSet.of([n]) for n in neurons}
        unknown = [s for s in without.values() if self._witness not in self._memo.get(s, {})]
        if unknown:
            values = self.similarities(unknown, [self._witness])[:, 0].tolist()
            for s, value in zip(unknown, values, strict=True):
                self._memo.setdefault(s, {})[self._witness] = value
        return [n for n, s in without.items() if max(self._memo[s].values()) > level]

    def sensitivity(self, seeds: Sequence[int], level: float, off: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Gradient of the mean same-seed similarity with respect to a mask on every value neuron, at mask = `level` everywhere.

        Layer -> (width,). Large where switching the neuron on again would bring the memory back most.
        """
        model = self.probe.model
        with torch.enable_grad(), _frozen(model.denoiser):
            scales = {n: torch.full((1, w), level, device=model.device) for n, w in model.widths().items()}
            for name in off or {}:
                scales[name] = scales[name] * off[name]
            for scale in scales.values():
                scale.requires_grad_()
            similarity = self._compare(scales, seeds).mean()
            gradients = torch.autograd.grad(similarity, list(scales.values()))
        self.probe.evaluations += 2 * len(seeds)
        return {name: g[0].float().cpu() for name, g in zip(scales, gradients, strict=True)}


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for weights: only masks are asked for."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
