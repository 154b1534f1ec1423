"""NeMo as its published code runs it, the yardstick of `localize.py`: the same results as
`search="listing"`, at the published cost.

Two U-Net passes per score, the first thrown away; a U-Net pass to read activations that only depend
on the text; the text encoder once per seed; one score at a time; candidates that occur twice tested
twice. Nothing here is used by the package.

In one thing it is cheaper than the published scripts: they pass all seeds and drop those that are
not kept from the result, and their refinement begins with two noise differences that are known.
What they spend is counted beside (`scripted`), not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from findnemo import Calibration, Model, NeuronSet
from findnemo.models import Text
from findnemo.scores import SIMILARITIES, minmax, pairwise

Neuron = tuple[str, int]


@dataclass
class Literal:
    """One caption; `evaluations` counts latents through the U-Net, `scripted` those that the
    published scripts pass for the same.

        found = Literal(model, caption, calibration).run()
        found.memorized, found.neurons, found.evaluations
    """

    model: Model
    prompt: str
    calibration: Calibration
    evaluations: int = 0
    scripted: int = 0
    neurons: NeuronSet = field(default_factory=NeuronSet)
    candidates: int = 0
    memorized: bool = False
    keep: float | None = None  # pairwise score from which a seed is kept (default: tau)
    score_after: float = float("nan")

    def run(self) -> Literal:
        """Both halves: detection, and the search where a seed is kept."""
        self.detect()
        if self.memorized:
            self.search()
        return self

    @torch.no_grad()
    def detect(self) -> None:
        """Algorithm 1 with nothing off: which seeds are kept."""
        settings = self.calibration.settings
        self.similar = SIMILARITIES[settings.similarity]
        self.timestep = self.model.timesteps(settings.steps)[settings.timestep]
        self.latents = self.model.noise(self.prompt, range(settings.samples), settings.seed)
        unblocked = self._deltas([], range(settings.samples))
        best = pairwise(unblocked, settings.similarity).amax(1)
        least = self.calibration.tau if self.keep is None else self.keep
        self.kept = torch.nonzero(best >= least).flatten().tolist()
        self.memorized = bool(self.kept)
        self.unblocked = unblocked[self.kept]

    @torch.no_grad()
    def search(self) -> None:
        """Algorithms 3 and 4 on the seeds that are kept."""
        candidates, reached = self._initial_selection()
        tau_ref = max(self.calibration.tau, reached)
        self.candidates = len(candidates)
        self.scripted += 2 * 2 * len(self.latents)  # unblocked and all blocked once more
        kept = self._refine(candidates, tau_ref)
        self.neurons = NeuronSet.of(kept)
        spent = self.evaluations
        self.score_after = self._score(kept)  # for the report only: the scripts' cost alone
        self.evaluations = spent

    def _pass(self, latents: Tensor, text: Text) -> Tensor:
        self.evaluations += len(latents)
        return self.model.predict_noise(latents, self.timestep, text)

    def _deltas(self, off: Sequence[Neuron], seeds: Sequence[int]) -> Tensor:
        latents = self.latents[list(seeds)]
        text = Text.cat([self.model.encode([self.prompt]) for _ in seeds])  # once per seed
        with ExitStack() as stack:
            layers = self.model.value_layers
            for name in {n for n, _ in off}:
                indices = [i for n, i in off if n == name]
                stack.callback(layers[name].register_forward_hook(_zero(indices)).remove)
            self._pass(latents, text)  # thrown away
            eps = self._pass(latents, text)
        self.scripted += 2 * len(self.latents)
        return minmax(eps.float() - latents.float(), self.calibration.settings.per_channel)

    def _score(self, off: Sequence[Neuron]) -> float:
        return float(self.similar(self.unblocked, self._deltas(off, self.kept)).max())

    def _activations(self) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for name, layer in self.model.value_layers.items():

                def hook(module, args, output, name=name):
                    seen[name] = output[0].float().abs().mean(0).cpu()

                stack.callback(layer.register_forward_hook(hook).remove)
            self._pass(self.latents[:1], self.model.encode([self.prompt]))
        self.scripted += 1
        return seen

    def _initial_selection(self) -> tuple[list[Neuron], float]:
        """Algorithm 3.

        Unusual neurons first, then the strongest of every layer: some are in the list twice.
        """
        for trial in range(self.calibration.settings.trials):
            absolute = self._activations()
            z = self.calibration.z_scores(absolute)
            off = [
                (n, int(i))
                for n in z
                for i in torch.nonzero(z[n].abs() > 5 - 0.25 * trial).flatten()
            ]
            off += [
                (n, int(i))
                for n in z
                for i in absolute[n].topk(min(trial, len(absolute[n]))).indices
            ]
            score = self._score(off)
            if score <= self.calibration.tau:
                break
        return off, score

    def _refine(self, off: list[Neuron], tau_ref: float) -> list[Neuron]:
        order = list(self.model.value_layers)
        if self.calibration.settings.reverse:
            order.reverse()
        for name in order:
            rest = [n for n in off if n[0] != name]
            if len(rest) < len(off) and self._score(rest) <= tau_ref:
                off = rest
        for neuron in sorted(off, key=lambda n: (order.index(n[0]), n[1])):
            rest = [n for n in off if n != neuron]
            if self._score(rest) <= tau_ref:
                off = rest
        return off


def _zero(indices: list[int]):
    def hook(module: torch.nn.Module, args: tuple, output: Tensor) -> Tensor:
        output = output.clone()
        output[..., indices] = 0
        return output

    return hook
