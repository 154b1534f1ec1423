"""A pipeline's call written out with plain diffusers: what the mitigations' own calls are held
against. Nothing of findnemo computes here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from _mitigated import PROMPT
from torch import Tensor

from findnemo.seeds import sample_seed

Guide = Callable[[int, float, Tensor, Tensor, Tensor], Tensor]


def drawn(k: int = 0) -> Tensor:
    """The noise with which `call` starts image k."""
    generator = torch.Generator().manual_seed(sample_seed(0, PROMPT, k))
    return torch.randn(1, 4, 16, 16, generator=generator)


@torch.no_grad()
def embedded(pipeline: Any, text: str) -> Tensor:
    ids = pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
    return pipeline.text_encoder(ids)[0]


def as_noise(pipeline: Any, output: Tensor, x: Tensor, t: float) -> Tensor:
    """eps, of what the U-Net predicts of x at t."""
    if pipeline.scheduler.config.prediction_type == "epsilon":
        return output
    a = pipeline.scheduler.alphas_cumprod[int(t)]
    return a.sqrt() * output + (1 - a).sqrt() * x


def difference(pipeline: Any, t: float, prompt: str = PROMPT) -> Callable[[Tensor], Tensor]:
    """d(x) at t."""
    y, empty = embedded(pipeline, prompt), embedded(pipeline, "")

    def d(x: Tensor) -> Tensor:
        given, without = (pipeline.unet(x, t, encoder_hidden_states=e).sample for e in (y, empty))
        return as_noise(pipeline, given, x, t) - as_noise(pipeline, without, x, t)

    return d


@torch.no_grad()
def written_out(
    pipeline: Any,
    steps: int,
    guide: Guide,
    start: Callable[[Tensor, float], Tensor] = lambda x, t: x,
    k: int = 0,
    text: Tensor | None = None,
) -> Tensor:
    """Finished latents of image k: `guide(step, t, without, given, x)` -> what is stepped by;
    `start(x_T, T)` -> the noise to begin with, as the U-Net sees it; `text`: the prompt's
    embeddings.
    """
    scheduler = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(steps)
    y = embedded(pipeline, PROMPT) if text is None else text
    empty = embedded(pipeline, "")
    x = drawn(k) * scheduler.init_noise_sigma
    for step, t in enumerate(scheduler.timesteps):
        if step == 0:
            seen = scheduler.scale_model_input(x, t)
            x = start(seen, t) * (x.norm() / seen.norm())
        seen = scheduler.scale_model_input(x, t)
        without, given = (
            pipeline.unet(seen, t, encoder_hidden_states=e).sample for e in (empty, y)
        )
        x = scheduler.step(guide(step, float(t), without, given, seen), t, x).prev_sample
    return x


def usual(step: int, t: float, without: Tensor, given: Tensor, x: Tensor) -> Tensor:
    """Guidance of `call`'s scale."""
    return without + 3.0 * (given - without)
