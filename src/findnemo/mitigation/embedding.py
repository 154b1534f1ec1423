"""Adjust the prompt's embedding until it changes the noise prediction less (Wen et al., ICLR 2024,
section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.errors import EditError
from findnemo.mitigation._calls import fitted
from findnemo.mitigation._case import Case, at_least
from findnemo.models import Model, Text
from findnemo.passes.conditioning import check_changeable, following
from findnemo.passes.gradients import frozen
from findnemo.runtime.state import undisturbed

TARGET = 1.5  # norm of a whole image's noise difference
LEARNING_RATE = 0.05
ITERATIONS = 10


@contextmanager
def adjusted_embedding(
    model: Model, case: Case, target: float = TARGET, iterations: int = ITERATIONS
) -> Iterator[None]:
    """At the first step of each pipeline call, change the embedding of every image's prompt until
    it changes the noise prediction less.

    `adjust` does this for each image alone. The rest of the call uses the changed embedding. Rows
    without the prompt (guidance) stay unchanged. `target`: || eps(x, y) - eps(x, empty) ||_2 of one
    image with latents of 4 x 64 x 64. A norm grows with the square root of the number of entries,
    so for other sizes it is multiplied by sqrt(entries / 16384): .375 for 4 x 16 x 16.
    `iterations`: at most. Raises InputError for a negative target or no iterations, EditError for
    passes of another size during a call.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with adjusted_embedding(model, Case(prompt)):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    at_least(0, target=target)
    at_least(1, iterations=iterations)
    check_changeable(model)
    model.check_editable()
    empty = model.unconditional()
    changed = Text(torch.empty(0))  # of the conditional rows, from the first step on

    def exchange(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        nonlocal changed
        if not call.following:
            return None
        latents, timestep, *_ = args
        text = model.text_of(kwargs)
        rows = call.rows(len(text))
        prompted = text[rows]
        if call.step == 0:
            about = latents[rows], int(timestep), prompted, empty
            with call.aside():
                changed = adjusted(model, *about, target, iterations)
        if len(changed) != len(prompted):
            raise EditError(
                f"images in this pass: {len(prompted)}, in the first step: {len(changed)};"
                " embeddings are adjusted for whole pipeline calls, begin a new one"
            )
        return args, kwargs | model.conditions(Text.cat([text[: rows.start], changed]))

    with (
        following(model) as call,
        model.denoiser.register_forward_pre_hook(exchange, with_kwargs=True),
    ):
        yield


@undisturbed
def adjusted(
    model: Model,
    latents: Tensor,
    timestep: int,
    text: Text,
    empty: Text,
    target: float = TARGET,
    iterations: int = ITERATIONS,
) -> Text:
    """`adjust` the tokens of each of N prompts for its latent (N, C, H, W).

    `empty`: the empty prompt. The parts of the text other than token embeddings stay unchanged.
    Rows are adjusted one at a time, so that the others do not matter, to the last bit.
    """
    scaled = fitted(target, latents[0])
    rows = []
    with frozen(model.denoiser):
        for x, y in zip(latents.split(1), text.split(), strict=True):
            without = replace(empty, sizes=y.sizes, guidance=y.guidance)
            with torch.no_grad():
                unprompted = model.predict_noise(x, timestep, without)
            noise = partial(_noise, model, x, timestep, y)
            tokens = adjust(noise, y.tokens, unprompted, scaled, iterations, model.starts)
            rows.append(replace(y, tokens=tokens))
    return Text.cat(rows)


def _noise(model: Model, latents: Tensor, timestep: int, text: Text, tokens: Tensor) -> Tensor:
    return model.predict_noise(latents, timestep, replace(text, tokens=tokens))


@undisturbed
def adjust(
    noise: Callable[[Tensor], Tensor],
    text: Tensor,
    unprompted: Tensor,
    target: float,
    iterations: int = ITERATIONS,
    starts: int = 1,
) -> Tensor:
    """The embedding (1, tokens, D), changed until || noise(embedding) - unprompted ||_2 is at most
    `target`, in at most `iterations` steps.

    The steps are AdamW with learning rate .05 on all positions except the first `starts`
    (start-of-text). An embedding that meets the target is returned unchanged.

    >>> text = adjust(lambda y: y, torch.ones(1, 2, 2), torch.zeros(1, 2, 2), target=1.9)
    >>> text[0, 0].tolist(), bool(text.norm() <= 1.9)
    ([1.0, 1.0], True)
    """
    start = text[:, :starts]
    rest = text[:, starts:].float().detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([rest], lr=LEARNING_RATE)
    for _ in range(iterations):
        with torch.enable_grad():
            prompted = noise(torch.cat([start, rest.to(text.dtype)], 1))
            distance = (prompted.float() - unprompted.float()).norm()
            if distance <= target:
                break
            (rest.grad,) = torch.autograd.grad(distance, rest)
        optimizer.step()
    return torch.cat([start, rest.detach().to(text.dtype)], 1)
