"""Adjust the initial noise until the prompt changes its prediction less (Han et al., NeurIPS 2025,
Adjusting initial noise to mitigate memorization in text-to-image diffusion models).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from findnemo.mitigation._calls import Difference, fitted, starting
from findnemo.mitigation._case import Case, at_least
from findnemo.mitigation.guidance import delayed
from findnemo.models import Model
from findnemo.passes.conditioning import following

TARGET = 0.9  # ||d||_2 for a latent of 4 x 64 x 64
RATE = 0.01
# the paper sets no limit, the released code 1,000; its published seconds fit eight for an image
ITERATIONS = 50
GAMMA = 0.7
RHO = 50.0
ROUNDS = 2
TAU = 900.0


@contextmanager
def adjusted_noise(
    model: Model,
    case: Case,
    target: float = TARGET,
    rate: float = RATE,
    iterations: int = ITERATIONS,
) -> Iterator[None]:
    """Start each image from noise with ||d||_2 <= `target` (per-sample mitigation, section 3.2.2
    and appendix A).

    d = eps(x_T, T, y) - eps(x_T, T, empty). `lowered` changes the noise that the pipeline draws;
    from the first step on, guidance is the pipeline's own. `target`: for latents of 4 x 64 x 64;
    for other sizes multiplied by the square root of the ratio of their entries. Published: .7 to
    1.5 for Stable Diffusion 1.4; 5 to 20 of v with rate .1 for 2.0, which is .34 to 1.4 of noise,
    at .068 to one. If noise does not reach the target in `iterations` steps, the best noise is used
    and a warning says so; the released code silently continues with the last. Raises InputError for
    negative numbers and no iterations.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with adjusted_noise(model, Case(prompt), iterations=5):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    at_least(0, target=target, rate=rate)
    at_least(1, iterations=iterations)
    tell = cache(model.tell)

    def change(noise: Tensor, d: Difference) -> Tensor:
        goal = fitted(target, noise)
        least, lowest = lowered(d, noise, goal, rate, iterations)
        if lowest > goal:
            tell(
                f"initial noise: not every image reached ||d|| = {goal:.3g} in {iterations} steps;"
                " the nearest noise is used"
            )
        return least

    with following(model) as call, starting(model, call, change):
        yield


def lowered(
    d: Difference, noise: Tensor, target: float, rate: float = RATE, iterations: int = ITERATIONS
) -> tuple[Tensor, float]:
    """The noise with the least ||d(noise)||_2 seen, (1, C, H, W), and that norm.

    AdamW (decay .01) lowers the norm until it is at most `target`, in at most `iterations` steps.

    >>> lowered(lambda x: x, torch.full((1, 1, 2, 2), 0.5), target=0.99)[1]
    0.97...
    """
    x = noise.clone().requires_grad_()
    optimizer = torch.optim.AdamW([x], lr=rate)
    least, lowest = noise, float("inf")
    for left in range(iterations, -1, -1):
        with torch.enable_grad():
            norm = d(x).norm()
        if norm < lowest:
            least, lowest = x.detach().clone(), norm.item()
        if lowest <= target or not left:
            break
        (x.grad,) = torch.autograd.grad(norm, x)
        optimizer.step()
    return least, lowest


@contextmanager
def flattened_noise(
    model: Model,
    case: Case,
    gamma: float = GAMMA,
    rho: float = RHO,
    rounds: int = ROUNDS,
    tau: float = TAU,
) -> Iterator[None]:
    """Start from noise around which d changes less, with guidance from timestep `tau` on
    (batch-wise mitigation, Algorithm 1).

    The noise is changed `rounds` times by x <- x - gamma (d(x + rho d / ||d||) - d(x)), see
    `flattened`: four evaluations a round, without a gradient. All images of a batch have the same
    rounds, but each has its own norm. `rho`: for latents of 4 x 64 x 64; for other sizes multiplied
    by the square root of the ratio of their entries. Published for Stable Diffusion 2.0: rho 30, 4
    rounds, tau 917.449. Timesteps above `tau` (of 1000) have no guidance. Raises ModelError and
    InputError if there is no guidance to delay, and InputError for negative numbers and no rounds.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with flattened_noise(model, Case(prompt)):
    ...     image = model.pipeline(prompt, num_inference_steps=15).images[0]
    """

    at_least(0, gamma=gamma, rho=rho, tau=tau)
    at_least(1, rounds=rounds)

    def change(noise: Tensor, d: Difference) -> Tensor:
        return flattened(d, noise, gamma, fitted(rho, noise), rounds)

    with following(model) as call, starting(model, call, change), delayed(model, call, tau):
        yield


@torch.no_grad()
def flattened(
    d: Difference, noise: Tensor, gamma: float = GAMMA, rho: float = RHO, rounds: int = ROUNDS
) -> Tensor:
    """Noise (1, C, H, W) after `rounds` of equation 10.

    >>> flattened(lambda x: x * x, torch.ones(1, 1, 1, 1), gamma=0.1, rho=1.0, rounds=1).item()
    0.69...
    """
    x = noise
    for _ in range(rounds):
        here = d(x)
        towards = nn.functional.normalize(here.flatten(), dim=0).view_as(here)
        x = x - gamma * (d(x + rho * towards) - here)
    return x
