"""Denoising by DDIM with value neurons scaled: a few large steps show most of what the finished picture will be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from findnemo.edits import scaled
from findnemo.errors import NumericalError
from findnemo.models import Model, Text
from findnemo.runtime.memory import freed, out_of_memory, too_little

BATCH = 8  # latents denoised at once, until memory says otherwise

T = TypeVar("T")


@dataclass(frozen=True)
class Path:
    """What denoising went through. `latents`: x_t before every step, each (N, C, H, W); `timesteps`; `image`: x_0 at the end, float32."""

    latents: tuple[Tensor, ...]
    timesteps: tuple[float, ...]
    image: Tensor


class Denoising:
    """Denoising of one caption, each of its samples from its own initial latents, deterministically (DDIM, Song et al. 2021; flows: Euler).

    `guidance`: scale of classifier-free guidance (Ho and Salimans 2022); 1 or less, or a model into which guidance was distilled: none.
    `evaluations` counts U-Net sample evaluations: one latent through the network once, twice under guidance, three times with its gradient.
    """

    def __init__(self, model: Model, prompt: str, samples: int, guidance: float, seed: int = 0):
        self.model, self.guidance = (
            model,
            guidance if guidance > 1 and not model.distilled else None,
        )
        self.prompt, self.text = prompt, model.encode([prompt])
        self.empty = None if self.guidance is None else model.unconditional()
        self.noise = model.noise(prompt, range(samples), seed)
        self.evaluations, self._batch = 0, BATCH

    @torch.no_grad()
    def run(
        self, samples: Sequence[int], steps: int, scales: Mapping[str, Tensor] | None = None
    ) -> Path:
        """Denoise samples, by their numbers, in so many steps. `scales`: value layer -> (1, width), factors of its outputs.

        Raises NumericalError if the model gives NaN: a picture of it is like no other, and would pass for one without a copy.
        """
        timesteps = self.model.timesteps(steps)
        parts = self._parts(samples, lambda part: self._run(part, timesteps, scales or {}))
        states = tuple(
            torch.cat(rows) for rows in zip(*(states for states, _ in parts), strict=True)
        )
        image = torch.cat([image for _, image in parts])
        if not image.isfinite().all():
            raise NumericalError(
                f"the model gave NaN or infinity where {self.prompt!r:.100} was denoised in {steps} steps"
            )
        return Path(states, tuple(timesteps), image)

    def _run(
        self, samples: Sequence[int], timesteps: Sequence[float], scales: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        latents, states = self.noise[list(samples)], []
        image = latents.float()
        for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            states.append(latents)
            image = self.image(latents, timestep, scales)
            if following is not None:
                latents = self._step(latents, image, timestep, following)
        return states, image

    def _step(self, latents: Tensor, image: Tensor, timestep: float, following: float) -> Tensor:
        """x at the following timestep: the same noise, less of it."""
        (c, s), (c_next, s_next) = (self.model.mixture(t) for t in (timestep, following))
        noise = (latents.float() - c.to(image) * image) / s.to(image)
        return (c_next.to(image) * image + s_next.to(image) * noise).to(latents.dtype)

    def image(self, latents: Tensor, timestep: float, scales: Mapping[str, Tensor]) -> Tensor:
        """Guided x0_hat, (N, C, H, W), float32; differentiable in `scales`."""
        count = len(latents)
        text, both = self.text.expand(count), latents
        if self.empty is not None:
            text = Text.cat([self.empty.expand(count), text])
            both = torch.cat([latents, latents])
        self.evaluations += len(both)
        with scaled(self.model, scales) if scales else nullcontext():
            images = self.model.image(self.model.output(both, timestep, text), both, timestep)
        if self.empty is None or self.guidance is None:
            return images
        without, given = images.chunk(2)
        return without + self.guidance * (given - without)

    def gradients(
        self,
        latents: Tensor,
        timestep: float,
        scales: Mapping[str, Tensor],
        value: Callable[[Tensor, slice], Tensor],
    ) -> dict[str, Tensor]:
        """Gradient with respect to `scales` (layer -> (1, width)) of the sum of `value(x0_hat, rows)` over the latents: layer -> (width,)."""

        def part(rows: Sequence[int]) -> list[Tensor]:
            with torch.enable_grad():
                variables = {
                    name: scale.detach().clone().requires_grad_() for name, scale in scales.items()
                }
                image = self.image(latents[list(rows)], timestep, variables)
                total = value(image, slice(rows[0], rows[-1] + 1)).sum()
                found = torch.autograd.grad(total, list(variables.values()))
            self.evaluations += 2 * len(rows) * (1 if self.empty is None else 2)
            return [g[0].float().cpu() for g in found]

        parts = self._parts(range(len(latents)), part)
        return {
            name: sum(rest, first)
            for name, (first, *rest) in zip(scales, zip(*parts, strict=True), strict=True)
        }

    def _parts(self, samples: Sequence[int], part: Callable[[Sequence[int]], T]) -> list[T]:
        """`part` of the samples, in as many pieces as memory asks for. Raises DeviceError if one sample is too much."""
        results: list[T] = []
        done = 0
        while done < len(samples):
            piece = samples[done : done + self._batch]
            try:
                results.append(part(piece))
                done += len(piece)
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            if len(piece) == 1:
                raise too_little(self.model.device, "a single latent")
            self._batch = len(piece) // 2
            freed(self.model.device)
        return results


def likeness(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of latents (N, C, H, W) and (M, C, H, W) after each channel's mean was taken off: (N, M), 1 for the same picture.

    >>> latents = torch.arange(8.0).view(1, 2, 2, 2)
    >>> likeness(latents, torch.cat([3 * latents + 1, -latents])).round(decimals=4).tolist()
    [[1.0, -1.0]]
    """
    first, second = (
        torch.nn.functional.normalize((x - x.mean((2, 3), keepdim=True)).flatten(1), dim=1)
        for x in (one, other)
    )
    return first @ second.T
