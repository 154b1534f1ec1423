"""Noise differences of a prompt, the input of scores and searches (Finding NeMo, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from findnemo.edits import masks, scaled
from findnemo.errors import InputError, ModelError, NumericalError
from findnemo.models import Model, Text, require_caption
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.reuse import Reuse
from findnemo.passes.sharing import Pass, outputs, sharing
from findnemo.passes.spending import spend
from findnemo.runtime.memory import Batches
from findnemo.scores import CONSTANT, SIMILARITIES, constant, memorization_score, minmax
from findnemo.settings import PAPER, Settings

BATCH = 64  # latents in one pass; fewer if memory is short
GROUP = 32  # captions that share passes, two seeds each: 64 latents
SEARCHES = 8  # captions searched side by side
SMALL = 24 * 24  # positions of a latent up to which these numbers apply

Predict = Callable[[Tensor, int, Text], Tensor]


class Rows:
    """Initial latents under one model, each with the text of its prompt.

    Every noise difference is one U-Net pass.

    `rows`: (prompt, sample number) of every latent. `text`: the encoded prompts, one row a latent,
    or a single one for all. `reuse`: keep the results of the first pass before each value layer,
    and compute later passes from the first edited layer on. It is for many passes under one model
    with no other changes.

    A row for which the model gives NaN has deltas of NaN. A difference without content is infinite
    (`scores.fault`). Other rows are not affected.
    """

    def __init__(
        self,
        model: Model,
        rows: Sequence[tuple[str, int]],
        settings: Settings,
        text: Text,
        reuse: bool = False,
    ):
        model.check_editable()
        for prompt, _ in rows:
            require_caption(prompt)
        if settings.guidance is not None and model.distilled:
            raise ModelError(
                f"a {type(model.pipeline).__name__} has guidance built in: noise differences with"
                " guidance are not defined, leave it out"
            )
        self.model = model
        self.settings = settings
        self.text = text
        self.samples = tuple(sample for _, sample in rows)
        self.timestep = model.timesteps(settings.steps)[settings.timestep]
        self.empty = None if settings.guidance is None else model.unconditional()
        self.latents = torch.cat([model.noise(prompt, [k], settings.seed) for prompt, k in rows])
        self.batches = Batches(model.device, BATCH, release=self._forget)
        # with guidance a pass has two texts, so no result can be reused for both
        self._reuse = Reuse() if reuse and self.empty is None else None
        self._layers = list(model.layers_of("all")) if reuse else []

    def _forget(self) -> None:
        self._reuse = None

    @torch.no_grad()
    def deltas(self, neurons: NeuronSet = EMPTY, keep: Sequence[int] | None = None) -> Tensor:
        """Scaled noise differences (N, C, H, W) with `neurons` deactivated, of the rows at
        positions `keep`.

        delta = eps(x_T, T, y) - x_T, min-max scaled to [0, 1].
        """
        keep = range(len(self.samples)) if keep is None else keep
        return self.scaled_deltas(masks(self.model, [neurons]), keep)

    def scaled_deltas(
        self, scales: Mapping[str, Tensor], keep: Sequence[int], untouched: int = 0
    ) -> Tensor:
        """Scaled noise differences with the outputs of value layers multiplied by `scales`.

        `scales`: layer -> (1, width), or (N, width), one mask for each of `keep`. `untouched`:
        number of first rows, in order, that are known to be scaled by 1, so that their results may
        be reused.
        """

        def part(rows: slice) -> Tensor:
            part = {name: s if len(s) == 1 else s[rows] for name, s in scales.items()}
            return self.one_pass(part, keep[rows], untouched if rows == slice(0, len(keep)) else 0)

        return torch.cat(self.batches(len(keep), part))

    @torch.no_grad()
    def similarities(
        self, untouched: Tensor, sets: Sequence[NeuronSet], keep: Sequence[int], together: int = 1
    ) -> Tensor:
        """Same-seed similarity with each set switched off, (sets, rows), in one batch.

        `untouched`: deltas of all rows. `keep`: positions of the rows to compare. `together`:
        number of consecutive rows compared at once, if a similarity depends on that (MS-SSIM).
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
        """`scaled_deltas` in a single pass, regardless of memory; differentiable in `scales`."""
        latents = self.latents[list(keep)]
        text = self.text if len(self.text) == 1 else self.text[list(keep)]
        untouched = untouched if scales else len(keep)
        if self.model.engine is not None and not torch.is_grad_enabled():
            eps = self.epsilon(latents, text, partial(self.model.engine.predict, scales=scales))
        elif sharing(self.model):
            eps = self.epsilon(latents, text, partial(self._shared, scales=scales))
        else:
            with self._reusing(scales, keep, untouched), scaled(self.model, scales):
                eps = self.epsilon(latents, text, self.model.predict_noise)
        return self._scaled(eps - latents.float(), latents.float().abs().max())

    def _scaled(self, delta: Tensor, beside: Tensor) -> Tensor:
        scaled = minmax(delta, self.settings.per_channel, strict=False)
        empty = constant(delta, self.settings.per_channel, beside)
        return torch.where(empty.view(-1, 1, 1, 1), torch.inf, scaled)

    def _reusing(
        self, scales: Mapping[str, Tensor], keep: Sequence[int], untouched: int
    ) -> AbstractContextManager:
        if self._reuse is None:
            return nullcontext()
        if not self._reuse.outputs and list(keep[:untouched]) == list(range(len(self.samples))):
            return self._reuse.record(self.model)
        first = min((self._layers.index(n) for n in scales), default=len(self._layers))
        return self._reuse.replay(self.model, first, keep)

    def epsilon(self, latents: Tensor, text: Text, predict: Predict) -> Tensor:
        conditional = self._predict(latents, text, predict).float()
        if self.empty is None or self.settings.guidance is None:
            return conditional
        unconditional = self._predict(latents, self.empty, predict).float()
        return unconditional + self.settings.guidance * (conditional - unconditional)

    def _shared(
        self, latents: Tensor, timestep: float, text: Text, scales: Mapping[str, Tensor]
    ) -> Tensor:
        output = outputs(self.model, Pass(latents, timestep, (text,), scales))[0]
        return self.model.as_noise(output, latents, timestep)

    def _predict(self, latents: Tensor, text: Text, predict: Predict) -> Tensor:
        spend(len(latents))
        return predict(latents, self.timestep, text.expand(len(latents)))


class Probe(Rows):
    """The samples of one prompt under one model, for scores and searches.

    `samples`: sample numbers of the initial latents (default 0 .. settings.samples - 1). `text`:
    the encoded prompt, one row, if known. Raises NumericalError if the model gives NaN, or if a
    noise difference is constant.

    >>> import findnemo
    >>> probe = Probe(findnemo.load("demo"), "a red star", samples=[0, 1])
    >>> probe.deltas().shape, probe.score() < 0.9
    (torch.Size([2, 4, 16, 16]), True)
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
        numbers = tuple(range(settings.samples) if samples is None else samples)
        if len(set(numbers)) < len(numbers):
            raise InputError(
                f"sample numbers {numbers!r:.60} name a sample twice, which is like itself: give"
                " different ones"
            )
        require_caption(prompt)
        self.prompt = prompt
        encoded = model.encode([prompt]) if text is None else text
        super().__init__(model, [(prompt, k) for k in numbers], settings, encoded, reuse)

    @torch.no_grad()
    def first_deltas(self, guess: NeuronSet) -> tuple[Tensor, Tensor]:
        """Untouched deltas of all samples (N, C, H, W), and of the first sample with `guess`
        deactivated (1, C, H, W).

        Both come from one pass: a first guess costs one latent, but no pass of its own.
        """
        count = len(self.samples)
        scales = masks(self.model, [EMPTY] * count + [guess])
        both = self.scaled_deltas(scales, [*range(count), 0], untouched=count)
        return both[:count], both[count:]

    def score(self, neurons: NeuronSet = EMPTY) -> float:
        """Memorization score: the largest pairwise similarity of the deltas or their mean,
        according to the settings.
        """
        return memorization_score(
            self.deltas(neurons), self.settings.similarity, self.settings.pairs
        )

    def _scaled(self, delta: Tensor, beside: Tensor) -> Tensor:
        scaled = minmax(delta, self.settings.per_channel)
        if constant(delta, self.settings.per_channel, beside).any():
            raise NumericalError(f"{CONSTANT} (caption {self.prompt!r})")
        return scaled


def group_size(model: Model) -> int:
    """How many captions share passes in detection and calibration: 32 for small latents, 4 for 64 x
    64, where arithmetic takes longer than calls.

    A killed process loses at most one such group.
    """
    _, height, width = model.latent_shape
    return max(1, min(GROUP, GROUP * SMALL // (height * width)))


def search_group(model: Model) -> int:
    """How many captions share passes in localization and verification: 8 for small latents, 4 for
    64 x 64.

    Each caption needs several latents at a time.
    """
    return min(SEARCHES, group_size(model))


def score(
    model: Model,
    prompt: str,
    neurons: NeuronSet | None = None,
    settings: Settings = PAPER,
    samples: Sequence[int] | None = None,
) -> float:
    """The memorization score of a prompt, in [-1, 1].

    By default it is the largest pairwise SSIM of the prompt's noise differences over the seeds.
    `neurons` are switched off meanwhile. `samples`: other sample numbers than 0 .. 9, for a check
    on fresh seeds. Source: Finding NeMo, section 3.2.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> findnemo.score(model, "Brantwood Roasters first cup, a large brown ring") > 0.6
        True
    """
    return Probe(model, prompt, settings, samples).score(neurons or EMPTY)
