"""Entropy of the cross-attention (Ren et al., ECCV 2024): a memory spreads the attention over the
tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from findnemo.detection._score import Score, mean_score
from findnemo.errors import ModelError
from findnemo.images import ImageSettings, generate
from findnemo.models import Model
from findnemo.passes import counting
from findnemo.passes.attention import recorded

SHARE = 5  # metric D uses the last fifth of the steps, 10 of 50


def attention_entropy(p: Tensor) -> Tensor:
    """sum over tokens of -p log p, with 0 log 0 = 0, in nats: (..., tokens) -> (...).

    >>> attention_entropy(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    return torch.special.entr(p).sum(-1)


@torch.no_grad()
def entropy_d(
    model: Model, prompt: str, settings: ImageSettings, *, images: int = 4, pooled: bool = False
) -> Score:
    """Metric D of a whole guided run, in nats: mean over images of `late_entropy`.

    `pooled`: average the attention over the layers before its entropy is taken, as in the released
    code; the paper averages the entropies of the layers. Takes `settings.steps` passes of both
    halves. The pipeline runs with its own sampler and with the edits in force; only the conditional
    half of its batches is used. Raises ModelError for a model without known cross-attention,
    NumericalError on NaN. Source: Ren et al., section 4.3 (metric D).

    >>> import findnemo
    >>> entropy_d(findnemo.load("demo"), "a red star", findnemo.ImageSettings(steps=5, guidance=2.0), images=1).evaluations
    10
    """
    seen: dict[int, list[Tensor]] = {}
    with (
        counting(model) as spent,
        recorded(model, lambda layer, step, p: seen.setdefault(step, []).append(p.mean(1))),
    ):
        generate(model, prompt, range(images), settings)
    p = torch.stack([torch.stack(seen[step]) for step in sorted(seen)])
    if pooled:
        p = p.mean(1, keepdim=True)
    return mean_score(late_entropy(p, end=len(model.tokens(prompt)) - 1), spent)


def late_entropy(p: Tensor, end: int) -> Tensor:
    """Metric D of attention p (steps, layers, images, tokens), averaged over heads and queries ->
    (images,).

    It is the mean entropy over all layers and the last fifth of the steps, plus the rise of one
    part of it since the first step. That part falls on the tokens from position `end` on:
    end-of-text and padding.
    """
    late = slice(-max(1, round(len(p) / SHARE)), None)
    whole = attention_entropy(p).mean(1)
    summary = attention_entropy(p[..., end:]).mean(1)
    return whole[late].mean(0) + summary[late].mean(0) - summary[0]


@torch.no_grad()
def entropy_e(
    model: Model, prompt: str, settings: ImageSettings, *, images: int = 4, layer: int = 3
) -> Score:
    """Metric E, in nats: the entropy in one cross-attention layer at the first step, mean over
    images.

    `layer`: position in forward order, by default the fourth. One conditional pass an image:
    guidance does not enter the first step. Raises ModelError for a model with too few layers,
    NumericalError on NaN. Source: Ren et al., section 4.3 (metric E).

    >>> import findnemo
    >>> entropy_e(findnemo.load("demo"), "a red star", findnemo.demo.image_settings()).evaluations
    4
    """
    names = list(model.cross_attentions)
    # without any layer, the error of `recorded` says what to use instead
    if names and not 0 <= layer < len(names):
        raise ModelError(
            f"no cross-attention layer {layer} in this model: it has {len(names)}, counted from 0"
        )
    text = model.encode([prompt])
    seen = {}
    latents = model.noise(prompt, range(images), settings.seed)
    with (
        counting(model) as spent,
        recorded(model, lambda name, step, p: seen.update({name: p.mean(1)})),
    ):
        model.predict_noise(latents, model.timesteps(settings.steps)[0], text.expand(images))
    return mean_score(attention_entropy(seen[names[layer]]), spent)
