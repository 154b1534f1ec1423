"""Noise differences of a prompt, the raw material of scores and searches (Finding NeMo, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from findnemo.edits import masks, scaled
from findnemo.errors import InputError, ModelError, NumericalError
from findnemo.models import Model, Text, require_caption
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.reuse import Reuse
from findnemo.runtime.memory import freed, out_of_memory, too_little
from findnemo.scores import CONSTANT, SIMILARITIES, constant, memorization_score, minmax
from findnemo.settings import PAPER, Settings

BATCH = 64  # latents in one pass, until memory says otherwise
GROUP, SMALL = (
    32,
    24 * 24,
)  # captions that share passes, for latents of up to so many positions: 64 latents with two seeds each

T = TypeVar("T")
Predict = Callable[[Tensor, int, Text], Tensor]


class Probe:
    """One prompt under one model: text encoded once, latents drawn once, every delta one U-Net pass.

    `samples` are the sample numbers of the initial latents (default 0 .. settings.samples - 1). `text`: the prompt
    encoded, one row, if known; `of_many` makes a probe of several prompts. `reuse`: keep what the first pass computes before each value
    layer, and compute later passes from the first edited layer on; for many passes under one model that changes in nothing else.
    `evaluations` counts U-Net sample evaluations: one latent through the U-Net once (also where part of it is reused), twice under
    guidance, three times with its gradient. `batch`: latents in one pass; halved when the device runs out of memory.
    """

    def __init__(
        self,
        model: Model,
        prompt: str,
        settings: Settings = PAPER,
        samples: Sequence[int] | None = None,
        text: Text | None = None,
        reuse: bool = False,
    ):
        model.check_editable()
        require_caption(prompt)
        if settings.guidance is not None and model.distilled:
            raise ModelError(
                f"a {type(model.pipeline).__name__} has guidance built in: noise differences with guidance are not defined, leave it out"
            )
        self.model, self.prompt, self.settings = model, prompt, settings
        self.samples = tuple(range(settings.samples) if samples is None else samples)
        if len(set(self.samples)) < len(self.samples):
            raise InputError(
                f"sample numbers {self.samples!r:.60} name a sample twice, which is like itself: give different ones"
            )
        self.timestep = model.timesteps(settings.steps)[settings.timestep]
        self.text = model.encode([prompt]) if text is None else text
        self.empty = None if settings.guidance is None else model.unconditional()
        self.latents = model.noise(prompt, self.samples, settings.seed)
        self.evaluations, self.batch, self._strict = 0, BATCH, True
        # with guidance a pass sees two texts: nothing that could be given back to both
        self._reuse = Reuse() if reuse and self.empty is None else None
        self._layers = list(model.layers_of("all")) if reuse else []

    @classmethod
    def of_many(
        cls, model: Model, rows: Sequence[tuple[str, int]], settings: Settings, text: Text
    ) -> Probe:
        """One latent a row, (prompt, sample number), of any prompts, with the prompt encoded, N rows.

        A row for which the model gives NaN has deltas of NaN, one whose difference has no content is infinite (`scores.fault`): it shall not
        fail the others.
        """
        for prompt, _ in rows:
            require_caption(prompt)
        probe = cls(model, rows[0][0], settings, samples=[rows[0][1]], text=text)
        probe.samples, probe._strict = tuple(sample for _, sample in rows), False
        probe.latents = torch.cat(
            [model.noise(prompt, [sample], settings.seed) for prompt, sample in rows]
        )
        return probe

    @torch.no_grad()
    def deltas(self, neurons: NeuronSet = EMPTY, keep: Sequence[int] | None = None) -> Tensor:
        """Scaled noise differences (N, C, H, W) with `neurons` deactivated; `keep` picks positions among the samples.

        delta = eps(x_T, T, y) - x_T, min-max scaled to [0, 1]. Raises NumericalError on NaN, and for a difference that is the same everywhere.
        """
        return self.scaled_deltas(
            masks(self.model, [neurons]), range(len(self.samples)) if keep is None else keep
        )

    @torch.no_grad()
    def first_deltas(self, guess: NeuronSet) -> tuple[Tensor, Tensor]:
        """Deltas of all samples untouched (N, C, H, W), and of the first one with `guess` deactivated (1, C, H, W).

        In one pass: a first guess costs a latent, but no call of its own.
        """
        count = len(self.samples)
        scales = masks(self.model, [EMPTY] * count + [guess])
        both = self.scaled_deltas(scales, [*range(count), 0], untouched=count)
        return both[:count], both[count:]

    def scaled_deltas(
        self, scales: Mapping[str, Tensor], keep: Sequence[int], untouched: int = 0
    ) -> Tensor:
        """The same with the outputs of value layers multiplied by `scales`: layer -> (1, width), or (N, width), one mask a sample.

        `untouched`: so many rows, the samples in their order, are known to be scaled by 1: what they leave behind may be reused.
        """

        def part(rows: slice) -> Tensor:
            part = {name: s if len(s) == 1 else s[rows] for name, s in scales.items()}
            return self.one_pass(part, keep[rows], untouched if rows == slice(0, len(keep)) else 0)

        return torch.cat(self.in_batches(len(keep), part))

    @torch.no_grad()
    def similarities(
        self, untouched: Tensor, sets: Sequence[NeuronSet], keep: Sequence[int], together: int = 1
    ) -> Tensor:
        """Same-seed similarity with each set switched off, (sets, samples), in one batch.

        `untouched`: deltas of all samples; `keep`: positions of the samples that are asked. `together`: so many in a row are compared together,
        where a similarity depends on that (MS-SSIM).
        """
        scales = {
            name: scale.repeat_interleave(len(keep), 0)
            for name, scale in masks(self.model, sets).items()
        }
        rows = [*keep] * len(sets)
        alike = SIMILARITIES[self.settings.similarity]
        values = alike(untouched[rows], self.scaled_deltas(scales, rows), together)
        return values.view(len(sets), len(keep)).cpu()

    def one_pass(
        self, scales: Mapping[str, Tensor], keep: Sequence[int], untouched: int = 0
    ) -> Tensor:
        """The same in a single pass, whatever memory says; differentiable in `scales`."""
        latents = self.latents[list(keep)]
        text = self.text if len(self.text) == 1 else self.text[list(keep)]
        untouched = untouched if scales else len(keep)
        if self.model.engine is not None and not torch.is_grad_enabled():
            eps = self._eps(latents, text, partial(self.model.engine.predict, scales=scales))
        else:
            with self._reusing(scales, keep, untouched), scaled(self.model, scales):
                eps = self._eps(latents, text, self.model.predict_noise)
        return self._scaled(eps - latents.float(), float(latents.abs().max()))

    def _scaled(self, delta: Tensor, beside: float) -> Tensor:
        """Min-max scaled. A difference without content is refused, or infinite throughout where its row shall not fail the others."""
        scaled = minmax(delta, self.settings.per_channel, self._strict)
        empty = constant(delta, self.settings.per_channel, beside)
        if self._strict and empty.any():
            raise NumericalError(f"{CONSTANT} (caption {self.prompt!r})")
        return scaled if self._strict else torch.where(empty.view(-1, 1, 1, 1), torch.inf, scaled)

    def in_batches(self, count: int, part: Callable[[slice], T]) -> list[T]:
        """`part` of rows 0 to count, in as many pieces as memory asks for. Raises DeviceError if one row is too much."""
        results, done = [], 0
        while done < count:
            rows = slice(done, min(done + self.batch, count))
            try:
                results.append(part(rows))
                done = rows.stop
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            self._halve(
                rows.stop - rows.start
            )  # outside the handler, which holds the failed pass's tensors
        return results

    def _halve(self, size: int) -> None:
        if size == 1:
            raise too_little(self.model.device, "a single latent")
        self.batch, self._reuse = size // 2, None
        freed(self.model.device)

    def _reusing(
        self, scales: Mapping[str, Tensor], keep: Sequence[int], untouched: int
    ) -> AbstractContextManager:
        if self._reuse is None:
            return nullcontext()
        if not self._reuse.outputs and list(keep[:untouched]) == list(range(len(self.samples))):
            return self._reuse.record(self.model)
        first = min((self._layers.index(n) for n in scales), default=len(self._layers))
        return self._reuse.replay(self.model, first, keep)

    def _eps(self, latents: Tensor, text: Text, predict: Predict) -> Tensor:
        conditional = self._predict(latents, text, predict).float()
        if self.empty is None or self.settings.guidance is None:
            return conditional
        unconditional = self._predict(latents, self.empty, predict).float()
        return unconditional + self.settings.guidance * (conditional - unconditional)

    def _predict(self, latents: Tensor, text: Text, predict: Predict) -> Tensor:
        self.evaluations += len(latents)
        return predict(latents, self.timestep, text.expand(len(latents)))

    def score(self, neurons: NeuronSet = EMPTY) -> float:
        """Memorization score: the largest pairwise similarity of the deltas, or their mean, as the settings say."""
        return memorization_score(
            self.deltas(neurons), self.settings.similarity, self.settings.pairs
        )


def group_size(model: Model) -> int:
    """How many captions share passes in detection and calibration: 32 for small latents, 4 for 64 x 64, where a pass is arithmetic and not calls.

    A process that is killed loses one such group at most.
    """
    _, height, width = model.latent_shape
    return max(1, min(GROUP, GROUP * SMALL // (height * width)))


def score(
    model: Model,
    prompt: str,
    neurons: NeuronSet | None = None,
    settings: Settings = PAPER,
    samples: Sequence[int] | None = None,
) -> float:
    """The memorization score of a prompt: largest pairwise SSIM of its noise differences over the seeds, in [-1, 1].

    `neurons`: switched off meanwhile. `samples`: other sample numbers than 0 .. 9, for a check on fresh seeds.
    Source: Finding NeMo, section 3.2.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> findnemo.score(model, "Brantwood Roasters first cup, a large brown ring") > 0.6
        True
    """
    return Probe(model, prompt, settings, samples).score(neurons or EMPTY)
