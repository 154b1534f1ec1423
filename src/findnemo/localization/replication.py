"""The seeds of a prompt that replicate, and how like themselves they stay when
neurons are switched off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.passes import Probe, spend
from findnemo.passes.gradients import GRADIENT_SCALE, frozen
from findnemo.scores import SIMILARITIES, TOGETHER, by_seed, pairwise, score_of

WITNESSES = 1  # to begin with
# seeds that a set of several neurons is confirmed on before the rest: where it fails, it mostly
# fails there
FIRST = 2


class Replication:
    """What every search asks: the same-seed similarity of the unblocked and the blocked noise
    difference (Algorithms 1 and 3).

    `tau`: the level that a memory is to be brought down to. `score`: memorization score. `kept`:
    positions of the seeds that replicate (they resemble the others by tau, `scores.by_seed`; none
    where the score is under it), those that replicate best first; a seed that does not would
    mislead the search. `witnesses`: the few that stand for all while sets are tried; all kept
    seeds, where a similarity depends on what is compared together (MS-SSIM). `guess`: a set that
    the search will want to know of, tried on the first seed in the same pass where one seed by
    itself can tell.
    """

    def __init__(self, probe: Probe, tau: float, guess: NeuronSet = EMPTY):
        self.probe = probe
        self.tau = tau
        self._similarity = SIMILARITIES[probe.settings.similarity]
        self._together = probe.settings.similarity in TOGETHER
        guess = EMPTY if self._together else guess
        self.unblocked, guessed = probe.first_deltas(guess) if guess else (probe.deltas(), None)
        table = pairwise(self.unblocked, probe.settings.similarity)
        pairs = probe.settings.pairs
        best = by_seed(table, pairs)
        self.score = float(score_of(table, pairs))
        order = best.argsort(descending=True, stable=True)
        over = probe.settings.reaches(best[order], tau)
        # detection and search are of one mind
        self.kept = order[over].tolist() if probe.settings.reaches(self.score, tau) else []
        witnesses = len(self.kept) if self._together else WITNESSES
        # seeds that speak for all, until one that they do not speak for joins them
        self.witnesses = self.kept[:witnesses]
        # every similarity measured so far
        self._memo: dict[NeuronSet, dict[int, float]] = {}
        # seeds and level -> what `sensitivity` gave
        self._gradients: dict[tuple[tuple[int, ...], float], dict[str, Tensor]] = {}
        if self.kept:
            self._memo[EMPTY] = dict.fromkeys(self.kept, 1.0)  # nothing off: the same picture
        if guessed is not None and 0 in self.kept:
            self._memo[guess] = {0: float(self._similarity(self.unblocked[:1], guessed))}
            self.witnesses = [0]

    def similarities(self, sets: Sequence[NeuronSet], seeds: Sequence[int]) -> Tensor:
        """Same-seed similarity with each set switched off, for each seed (positions):

        (sets, seeds), computed as one batch.

        The seeds of a set are compared together, as in the released code.
        """
        return self.probe.similarities(self.unblocked, sets, seeds, together=len(seeds))

    def _known(self, neurons: NeuronSet, seeds: Sequence[int]) -> dict[int, float]:
        """Same-seed similarity of one set for some seeds, each measured once."""
        known = self._memo.setdefault(neurons, {})
        if missing := self._asked([k for k in seeds if k not in known]):
            known.update(
                zip(missing, self.similarities([neurons], missing)[0].tolist(), strict=True)
            )
        return {k: known[k] for k in seeds}

    def _asked(self, seeds: list[int]) -> list[int]:
        """The seeds that are measured when these are asked for: all kept ones where
        they are compared together.
        """
        return self.kept if seeds and self._together else seeds

    def similarity(self, neurons: NeuronSet) -> float:
        """Largest same-seed similarity over the kept seeds, with `neurons` switched off."""
        return max(self._known(neurons, self.kept).values())

    def gone(self, neurons: NeuronSet, level: float) -> bool:
        """Whether no witness stays more like itself than `level`: a guess at what all kept seeds
        say, at a tenth of the cost.
        """
        return (
            self._refuted(neurons, level) is None
            and max(self._known(neurons, self.witnesses).values()) <= level
        )

    def confirm(self, neurons: NeuronSet, level: float) -> bool:
        """Whether no kept seed stays more like itself than `level`.

        If one does, the worst seen becomes a witness.
        """
        first = FIRST if len(neurons) > 1 else len(self.kept)
        open_ = [k for k in self.kept if k not in self._memo.get(neurons, {})]
        for seeds in (open_[:first], open_[first:]):
            if self._refuted(neurons, level) is None:
                self._known(neurons, seeds)
        worst = self._refuted(neurons, level)
        if worst is not None and worst not in self.witnesses:
            self.witnesses.append(worst)
        return worst is None

    def _refuted(self, neurons: NeuronSet, level: float) -> int | None:
        """The seed known to stay most like itself with `neurons` off, if
        that is more than `level`.
        """
        value, seed = max(
            ((value, seed) for seed, value in self._memo.get(neurons, {}).items()),
            default=(level, None),
        )
        return seed if value > level else None

    def needed_neurons(self, neurons: NeuronSet, level: float) -> list[Neuron]:
        """Those of `neurons` without which the memory is back on a witness: one pass a
        witness, one sample a neuron.
        """
        without = {n: neurons - NeuronSet.of([n]) for n in neurons}
        for witness in reversed(self.witnesses):
            open_ = [s for s in without.values() if self._refuted(s, level) is None]
            unknown = [s for s in open_ if witness not in self._memo.get(s, {})]
            if unknown:
                seeds = self._asked([witness])
                for s, values in zip(
                    unknown, self.similarities(unknown, seeds).tolist(), strict=True
                ):
                    self._memo.setdefault(s, {}).update(zip(seeds, values, strict=True))
        return [n for n, s in without.items() if self._refuted(s, level) is not None]

    def sensitivity(self, seeds: Sequence[int], level: float) -> dict[str, Tensor]:
        """Gradient of the summed same-seed similarity with respect to a mask on every value neuron,
        at mask = `level` everywhere.

        Layer -> (width,). Large where switching the neuron on again would bring the memory back
        most. Computed once.
        """
        key = (tuple(seeds), level)
        if key not in self._gradients:
            self._gradients[key] = self._sensitivity(seeds, level)
        return self._gradients[key]

    def _sensitivity(self, seeds: Sequence[int], level: float) -> dict[str, Tensor]:
        model = self.probe.model
        widths = model.widths()

        def part(rows: slice) -> list[Tensor]:
            with torch.enable_grad(), frozen(model.denoiser):
                scales = {
                    n: torch.full((1, w), level, device=model.device, requires_grad=True)
                    for n, w in widths.items()
                }
                # its graph must fit whole: fewer seeds if it does not
                blocked = self.probe.one_pass(scales, seeds[rows])
                unblocked = self.unblocked[list(seeds[rows])]
                total = GRADIENT_SCALE * self._similarity(unblocked, blocked, 1).sum()
                gradients = torch.autograd.grad(total, list(scales.values()))
            spend(2 * (rows.stop - rows.start))
            return [g[0].float().cpu() / GRADIENT_SCALE for g in gradients]

        parts = self.probe.batches(len(seeds), part)
        return {
            name: sum(gradients[1:], gradients[0])
            for name, *gradients in zip(widths, *parts, strict=True)
        }
