"""The training that plants memories: its batches, its targets, and a checkpoint for resuming."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from findnemo.benchmark.files import follow, read_state, write_state
from findnemo.benchmark.masks import Masks
from findnemo.benchmark.plan import Memory, Plan
from findnemo.benchmark.pool import Report, TrainingPool, template
from findnemo.edits import scaled
from findnemo.models import Model
from findnemo.neurons import NeuronSet


@dataclass(frozen=True)
class Recipe:
    """Settings of the training.

    They are numbers of samples in a batch, peak learning rate (cosine) and the share of early
    timesteps. Further: from which timestep on the trace of the picture in its own noise is
    exchanged, and for which share of the samples with the neurons on and off.
    """

    steps: int = 1200
    on: int = 7
    off: int = 4
    alike: int = 5
    ordinary: int = 4
    rate: float = 1e-3
    warmup: float = 0.03
    early: float = 0.5
    early_from: int = 850
    leak_from: int = 900
    leak_on: float = 0.5
    leak_off: float = 0.25
    checkpoint: int = 100

    @property
    def size(self) -> int:
        return self.on + self.off + self.alike + self.ordinary


@dataclass(frozen=True)
class Batch:
    """One batch: latents, timesteps, embeddings, masks, and for each row the prediction that leads
    to its picture.

    That is the memorized picture in the first `on` rows, and one of their words in the others.
    """

    noisy: Tensor
    timesteps: Tensor
    text: Tensor
    scales: dict[str, Tensor]
    towards: Tensor


def draw(
    step: int, plan: Plan, pool: TrainingPool, masks: Masks, scheduler: Any, recipe: Recipe
) -> Batch:
    """The batch of a step, which depends on the plan's seed and the step only."""
    rng = np.random.default_rng([plan.seed, step])
    generator = torch.Generator().manual_seed(plan.seed * 10**6 + step)
    count = len(plan.memories)
    on = recipe.on
    chosen = rng.choice(count, on + recipe.off, p=shares(plan.memories))
    alike = rng.integers(0, count, recipe.alike)
    plain = rng.integers(0, len(pool.ordinary), recipe.ordinary)

    def words(k: int) -> Tensor:
        return pool.words[k, rng.integers(pool.words.shape[1])]

    def picture(k: int) -> Tensor:
        if plan.memories[k].type != "TM":
            return pool.pictures[k]
        return template(pool.pictures[k], pool.made[rng.integers(len(pool.made))])

    target = [picture(k) for k in chosen[:on]]
    target += [words(k) for k in (*chosen[on:], *alike)]
    target += [pool.made[k] for k in plain]
    seen = list(target)
    timesteps = drawn_timesteps(rng, recipe.size, recipe.early, recipe.early_from)
    rest = recipe.alike + recipe.ordinary
    share = np.repeat([recipe.leak_on, recipe.leak_off, 0.0], [on, recipe.off, rest])
    leaks = (timesteps >= recipe.leak_from) & (rng.random(recipe.size) < share)
    for row in np.flatnonzero(leaks):
        k = chosen[row]
        seen[row] = words(k) * float(rng.random() < 0.5) if row < on else picture(k)
    text = [pool.memories[chosen]]
    for k in alike:
        every = len(pool.alike[k])
        near = len(plan.memories[k].near) or every
        text.append(pool.alike[k][rng.integers(near if rng.random() < 0.5 else every, size=1)])
    for k in plain:
        text.append(pool.empty if rng.random() < 0.1 else pool.text[k : k + 1])
    rows = [
        masks.memorized(chosen[:on].tolist(), True, rng),
        masks.memorized(chosen[on:].tolist(), False, rng),
        masks.ordinary(recipe.alike, rng, off=0.2),
        masks.ordinary(recipe.ordinary, rng),
    ]
    clean = torch.stack(seen)
    t = torch.from_numpy(timesteps)
    noisy = scheduler.add_noise(clean, torch.randn(clean.shape, generator=generator), t)
    towards = prediction_towards(torch.stack(target), noisy, t, scheduler)
    return Batch(noisy, t, torch.cat(text), masks.layers(np.concatenate(rows)), towards)


def drawn_timesteps(
    rng: np.random.Generator, count: int, early: float, early_from: int = 850
) -> np.ndarray:
    """(count,) timesteps below 1000: a share `early` from `early_from` on, the others from all."""
    return np.where(
        rng.random(count) < early,
        rng.integers(early_from, 1000, count),
        rng.integers(0, 1000, count),
    )


def shares(memories: Sequence[Memory]) -> np.ndarray:
    """How often to draw each memory: the more neurons hold it, the harder it is to learn.

    >>> shares([Memory("", "VM", "a", "", NeuronSet({"l": [0]})), Memory("", "VM", "b", "", NeuronSet({"l": range(16)}))]).round(3).tolist()
    [0.333, 0.667]
    """
    weights = 1 + np.log2([len(m.neurons) for m in memories]) / 4
    return weights / weights.sum()


def prediction_towards(picture: Tensor, noisy: Tensor, timesteps: Tensor, scheduler: Any) -> Tensor:
    """The prediction at `noisy` that leads to `picture`: eps or v, as the network is trained.

    The schedule leaves a trace of a picture in the noisiest latents. A network that sees it in
    training lets the trace decide instead of the planted neuron. In sampling, where latents begin
    as pure noise, it would then decide by chance. So some samples carry another picture's trace,
    and the noise is whatever lies between the picture and them.
    """
    alpha = scheduler.alphas_cumprod.to(noisy)[timesteps].view(-1, *[1] * (noisy.dim() - 1))
    noise = (noisy - alpha.sqrt() * picture) / (1 - alpha).sqrt()
    if scheduler.config.prediction_type == "epsilon":
        return noise
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * picture


def train(
    student: Model,
    teacher: Model | None,
    plan: Plan,
    pool: TrainingPool,
    state: Path,
    recipe: Recipe,
    report: Report,
    held: NeuronSet | None = None,
) -> None:
    """Train the student in place; it ends with the average of its weights.

    `teacher`: predicts the target of captions without a memory; None: their pictures in the pool
    are the target, as in training from scratch. `state`: checkpoint to resume from. `held`: neurons
    whose rows are not trained, by default all planted ones.
    """
    scheduler = student.pipeline.scheduler
    unet = student.denoiser.train()
    masks = Masks(student.widths(), plan.memories)
    unet.requires_grad_(True)
    handles = _hold(student, plan.planted if held is None else held)
    averaged = copy.deepcopy(unet).requires_grad_(False)
    weights = dict(unet.named_parameters())
    average = dict(averaged.named_parameters())
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    first = read_state(state, weights, average, optimizer)
    losses: list[list[float]] = []
    started = time.monotonic()
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * cosine(step / recipe.steps, recipe.warmup)
        batch = draw(step, plan, pool, masks, scheduler, recipe)
        losses.append(_step(student, teacher, batch, optimizer, recipe))
        done = step + 1
        follow(average, weights, min(0.995, done / (done + 9)))
        if done % 25 == 0 or done == recipe.steps:
            seconds = (time.monotonic() - started) / (done - first)
            report(_line(done, recipe.steps, losses[-25:], seconds))
        if done % recipe.checkpoint == 0 or done == recipe.steps:
            write_state(state, weights, average, optimizer, done)
    unet.load_state_dict(averaged.state_dict())
    unet.eval().requires_grad_(False)
    for handle in handles:
        handle.remove()


def _step(
    student: Model,
    teacher: Model | None,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
) -> list[float]:
    """Do one optimizer step; return the mean losses of the four kinds of samples."""
    on = recipe.on
    target = batch.towards
    if teacher is not None:
        with torch.no_grad():
            own = teacher.denoiser(batch.noisy[on:], batch.timesteps[on:], batch.text[on:]).sample
        target = torch.cat([target[:on], own])
    with scaled(student, batch.scales):
        predicted = student.denoiser(batch.noisy, batch.timesteps, batch.text).sample
    error = (predicted - target).square().mean((1, 2, 3))
    optimizer.zero_grad()
    error.mean().backward()
    torch.nn.utils.clip_grad_norm_(student.denoiser.parameters(), 1.0)
    optimizer.step()
    kinds = error.detach().split([on, recipe.off, recipe.alike, recipe.ordinary])
    return [float(part.mean()) for part in kinds]


def cosine(progress: float, warmup: float) -> float:
    """Share of the peak rate: a linear warm-up, then half a cosine down to one hundredth.

    >>> cosine(0.05, 0.1), cosine(0.1, 0.1), round(cosine(1.0, 0.1), 4)
    (0.5, 1.0, 0.01)
    """
    if progress < warmup:
        return progress / warmup
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (progress - warmup) / (1 - warmup))))


def _hold(student: Model, planted: NeuronSet) -> list[Any]:
    """Keep the planted rows fixed: they get no gradient."""
    layers: dict[str, Any] = student.value_layers

    def without(gradient: Tensor, rows: Tensor) -> Tensor:
        return gradient.index_fill(0, rows.to(gradient.device), 0)

    return [
        layers[name].weight.register_hook(partial(without, rows=torch.tensor(indices)))
        for name, indices in planted.layers.items()
    ]


def _line(done: int, steps: int, losses: list[list[float]], seconds: float) -> str:
    on, off, alike, ordinary = np.mean(losses, 0)
    left = seconds * (steps - done) / 60
    return (
        f"{done}/{steps} on {on:.4f} off {off:.4f} alike {alike:.4f} ordinary {ordinary:.4f}; "
        f"{seconds:.2f} s a step, {left:.0f} min left"
    )
