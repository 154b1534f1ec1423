"""Start where the effect of the prompt is flat: sharpness-aware initialization (SAIL; Jeon et al.,
ICML 2025, Understanding and mitigating memorization in generative models via sharpness of
probability landscapes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from findnemo.mitigation._calls import Difference, fitted, starting
from findnemo.mitigation._case import Case, at_least
from findnemo.models import Model
from findnemo.passes.conditioning import following
from findnemo.seeds import sample_seed

ALPHA = 0.05
DELTA = 1.0
THRESHOLD = 8.2
RATE = 0.05
ITERATIONS = 10
CANDIDATES = 8


@contextmanager
def flat_start(
    model: Model,
    case: Case,
    alpha: float = ALPHA,
    delta: float = DELTA,
    threshold: float = THRESHOLD,
    iterations: int = ITERATIONS,
    candidates: int = CANDIDATES,
    squares: bool = False,
) -> Iterator[None]:
    """Start each image from noise around which d = eps(x, T, y) - eps(x, T, empty) hardly changes.

    `settled` changes the noise. It is accepted if ||d(x + delta d / ||d||)|| + alpha ||x|| <=
    `threshold`; else the next of `candidates` is tried. The first of these is the noise that the
    pipeline draws; the others come from case.seed and that noise. If none is accepted, the one with
    the least value is used, and a warning says so. `delta`, `threshold`: for latents of 4 x 64 x
    64, for other sizes multiplied by the square root of the ratio of their entries; `alpha` holds
    for all sizes, because both terms grow alike. The descent is on the value above, as in the
    released code; the published settings belong to it (for Stable Diffusion 2 threshold 4 to 6 and
    alpha .01, on latents of 4 x 96 x 96). `squares`: descend on the paper's sum of squares
    (Algorithm 2). At the published alpha it mostly shrinks the noise: use 1e-4. The shift v follows
    d, as in the code; in the paper it follows the score, -d. Raises InputError for negative numbers
    and no candidates.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with flat_start(model, Case(prompt), iterations=2, candidates=1):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    at_least(0, alpha=alpha, delta=delta, threshold=threshold, iterations=iterations)
    at_least(1, candidates=candidates)
    tell = cache(model.tell)

    def change(noise: Tensor, d: Difference) -> Tensor:
        step = fitted(delta, noise)
        goal = fitted(threshold, noise)
        least, lowest = noise, float("inf")
        for k in range(candidates):
            x, value = settled(
                d, _candidate(noise, k, case.seed), alpha, step, goal, iterations, squares
            )
            if value < lowest:
                least, lowest = x, value
            if lowest <= goal:
                return least
        tell(
            f"initial noise: for not every image one of {candidates} came to {goal:.3g}; the"
            " nearest is used"
        )
        return least

    with following(model) as call, starting(model, call, change):
        yield


def _candidate(noise: Tensor, k: int, seed: int) -> Tensor:
    """The k-th candidate noise of an image; the first is its own."""
    if k == 0:
        return noise
    name = hashlib.sha256(noise.cpu().numpy().tobytes()).hexdigest()
    generator = torch.Generator().manual_seed(sample_seed(seed, name, k))
    return torch.randn(noise.shape, generator=generator).to(noise)


def settled(
    d: Difference,
    noise: Tensor,
    alpha: float = ALPHA,
    delta: float = DELTA,
    threshold: float = THRESHOLD,
    iterations: int = ITERATIONS,
    squares: bool = False,
) -> tuple[Tensor, float]:
    """Noise (1, C, H, W) and its value ||d(x + v)|| + alpha ||x||, v = delta d(x) / ||d(x)||.

    Adam (.05) runs until the value is at most `threshold`, for at most `iterations` steps. It
    descends on the value, or with `squares` on || d(x + v) - d(x) ||^2 + alpha ||x||^2. v is
    computed again in each step, and is a constant in the gradient. The released code keeps the v of
    the initial noise.

    >>> x, value = settled(lambda x: x, torch.full((1, 1, 2, 2), 0.2), delta=1.0, threshold=1.2)
    >>> value <= 1.2 < settled(lambda x: x, torch.full((1, 1, 2, 2), 0.2), iterations=0)[1]
    True
    """
    x = noise.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=RATE)
    for left in range(iterations, -1, -1):
        with torch.enable_grad():
            with torch.set_grad_enabled(squares):
                here = d(x)
            v = delta * here.detach() / here.detach().norm()
            there = d(x + v)
            value = there.norm() + alpha * x.norm()
            if squares:
                loss = (there - here).square().sum() + alpha * x.square().sum()
            else:
                loss = value
        if value <= threshold or not left:
            break
        (x.grad,) = torch.autograd.grad(loss, x)
        optimizer.step()
    return x.detach(), value.item()
