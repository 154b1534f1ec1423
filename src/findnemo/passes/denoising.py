"""Denoising by DDIM with value neurons scaled: a few large steps already show most of the finished
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from findnemo.errors import NumericalError
from findnemo.models import Model
from findnemo.passes.sharing import Pass, gradients, outputs
from findnemo.passes.spending import spend
from findnemo.runtime.memory import Batches

QUICK = (3, 4)  # steps that replace all, up to a guidance of GENTLE and above it
FINE = (6, 10)  # likewise, with nearly finished pictures
GENTLE = 3.0
MANY = 3  # all steps are many if they are so many times the fine ones
CORRECTING = 8  # steps from which on errors of strong guidance are corrected
BATCH = 8  # latents denoised at once; fewer if memory is short


def quick_steps(guidance: float) -> int:
    """How many steps replace all (`Denoising.run`, `whole`).

    >>> quick_steps(2.0), quick_steps(7.5)
    (3, 4)
    """
    return QUICK[guidance > GENTLE]


def fine_steps(guidance: float) -> int:
    """In how many steps (`Denoising.run`, `whole`) pictures are nearly those of all steps.

    >>> fine_steps(2.0), fine_steps(7.5)
    (6, 10)
    """
    return FINE[guidance > GENTLE]


def confirming_steps(guidance: float, steps: int) -> int:
    """In how many steps a picture is made to confirm quick ones: in fine steps if all `steps` are
    many, else in all.

    >>> confirming_steps(7.5, 50), confirming_steps(2.0, 15)
    (10, 15)
    """
    fine = fine_steps(guidance)
    return fine if steps >= MANY * fine else steps


@dataclass(frozen=True)
class Path:
    """The states of a denoising run.

    `latents`: x_t before every step, each (N, C, H, W). `timesteps`. `image`: x_0 at the end,
    float32.
    """

    latents: tuple[Tensor, ...]
    timesteps: tuple[float, ...]
    image: Tensor


class Denoising:
    """Deterministic denoising of one caption, each sample from its own initial latents (DDIM, Song
    et al. 2021; flows: Euler).

    `guidance`: scale of classifier-free guidance (Ho and Salimans 2022); none for 1 or less, or for
    a model with distilled guidance. `first`: number of the first of the `samples`, which count from
    0 here. `more`: numbers of further samples, which follow them.
    """

    def __init__(
        self,
        model: Model,
        prompt: str,
        samples: int,
        guidance: float,
        seed: int = 0,
        first: int = 0,
        more: Sequence[int] = (),
    ):
        self.model = model
        self.guidance = guidance if guidance > 1 and not model.distilled else None
        self.prompt = prompt
        self.text = model.encode([prompt])
        self.empty = None if self.guidance is None else model.unconditional()
        self.noise = model.noise(prompt, [*range(first, first + samples), *more], seed)
        self._batches = Batches(model.device, BATCH)

    @torch.no_grad()
    def run(
        self,
        samples: Sequence[int],
        steps: int,
        scales: Mapping[str, Tensor] | None = None,
        whole: int | None = None,
    ) -> Path:
        """Denoise samples, given by their numbers, in a number of steps.

        `scales`: value layer -> (1, width), factors of its outputs, or (N, width), those of each
        sample. `whole`: the number of steps that these few replace. They are then taken evenly from
        its timesteps, from the first on, by DPM-Solver++ 2M (Lu et al. 2022, algorithm 2), which
        extrapolates the change of the last prediction: after three such steps a picture is nearly
        finished. A guidance above 3 makes the predictions of fewer than 8 steps too large, which
        more steps would correct. They are rescaled to the deviation of the conditional one (Lin et
        al. 2024, section 3.4, of x0_hat instead of the output).

        Raises NumericalError if the model gives NaN: such a picture resembles no other, and would
        seem to be no copy.
        """
        timesteps = self.model.timesteps(steps if whole is None else whole)
        if whole is not None:
            timesteps = [timesteps[k * len(timesteps) // steps] for k in range(steps)]

        def part(rows: slice) -> tuple[list[Tensor], Tensor]:
            own = {name: s if len(s) == 1 else s[rows] for name, s in (scales or {}).items()}
            return self._run(samples[rows], timesteps, own, whole is not None)

        parts = self._batches(len(samples), part)
        states = tuple(map(torch.cat, zip(*(states for states, _ in parts), strict=True)))
        image = torch.cat([image for _, image in parts])
        if not image.isfinite().all():
            raise NumericalError(
                f"the model gave NaN or infinity where {self.prompt!r:.100} was denoised in {steps}"
                " steps"
            )
        return Path(states, tuple(timesteps), image)

    def _run(
        self,
        samples: Sequence[int],
        timesteps: Sequence[float],
        scales: Mapping[str, Tensor],
        extrapolate: bool,
    ) -> tuple[list[Tensor], Tensor]:
        latents = self.noise[list(samples)]
        states = []
        ahead = 0.0
        strong = self.guidance is not None and self.guidance > GENTLE
        rescaled = extrapolate and strong and len(timesteps) < CORRECTING
        image = latents.float()
        for k, timestep in enumerate(timesteps):
            states.append(latents)
            last = image
            image = self.image(latents, timestep, scales, rescaled)
            if k + 1 < len(timesteps):
                if extrapolate and k:
                    ahead = self._ahead(*timesteps[k - 1 : k + 2])
                carried = image + ahead * (image - last) if ahead else image
                latents = self._step(latents, carried, timestep, timesteps[k + 1])
        return states, image

    def _ahead(self, before: float, timestep: float, following: float) -> float:
        """h_i / (2 h_{i-1}) of DPM-Solver++ 2M, h the rise of the log signal-to-noise ratio in a
        step; 0 after a step from pure noise.
        """
        pairs = [self.model.mixture(t) for t in (before, timestep, following)]
        first, second, third = (float((c / s).log()) for c, s in pairs)
        return (third - second) / (2 * (second - first))

    def _step(self, latents: Tensor, image: Tensor, timestep: float, following: float) -> Tensor:
        """x at the following timestep: equal noise, less of it."""
        (c, s), (c_next, s_next) = (self.model.mixture(t) for t in (timestep, following))
        noise = (latents.float() - c * image) / s
        return (c_next * image + s_next * noise).to(latents.dtype)

    def image(
        self, latents: Tensor, timestep: float, scales: Mapping[str, Tensor], rescaled: bool = False
    ) -> Tensor:
        """Guided x0_hat, (N, C, H, W), float32; differentiable in `scales`.

        `rescaled`: to the deviation of the conditional one.
        """
        asked = self._pass(latents, timestep, scales)
        spend(len(latents) * len(asked.texts))
        return self._guided(outputs(self.model, asked), latents, timestep, rescaled)

    def _pass(self, latents: Tensor, timestep: float, scales: Mapping[str, Tensor]) -> Pass:
        texts = (self.text,) if self.empty is None else (self.empty, self.text)
        each = tuple(text.expand(len(latents)) for text in texts)
        return Pass(latents, timestep, each, scales)

    def _guided(
        self, output: Tensor, latents: Tensor, timestep: float, rescaled: bool = False
    ) -> Tensor:
        """x0_hat from the network's predictions, (1 or 2, N, C, H, W): without and with the
        prompt.
        """
        images = [self.model.image(one, latents, timestep) for one in output]
        if self.guidance is None:
            return images[0]
        without, given = images
        guided = without + self.guidance * (given - without)
        return guided * _deviation(given) / _deviation(guided) if rescaled else guided

    def gradients(
        self,
        latents: Tensor,
        timestep: float,
        scales: Mapping[str, Tensor],
        value: Callable[[Tensor, slice], Tensor],
    ) -> dict[str, Tensor]:
        """Gradient of the sum of `value(x0_hat, rows)` over the latents with respect to `scales`
        (layer -> (1, width)): layer -> (width,).
        """

        def part(rows: slice) -> dict[str, Tensor]:
            asked = self._pass(latents[rows], timestep, scales)
            spend(3 * len(asked) * len(asked.texts))

            def values(output: Tensor, of: slice) -> Tensor:
                among = slice(rows.start + of.start, rows.start + of.stop)
                return value(self._guided(output, latents[among], timestep), among)

            return gradients(self.model, asked, values)

        first, *rest = self._batches(len(latents), part)
        return {name: sum((part[name] for part in rest), first[name]) for name in scales}


def _deviation(images: Tensor) -> Tensor:
    return images.std((1, 2, 3), keepdim=True)


def likeness(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of latents (N, C, H, W) and (M, C, H, W), with each channel's mean removed: (N, M), 1
    for equal pictures.

    >>> latents = torch.arange(8.0).view(1, 2, 2, 2)
    >>> likeness(latents, torch.cat([3 * latents + 1, -latents])).round(decimals=4).tolist()
    [[1.0, -1.0]]
    """
    first, second = (
        torch.nn.functional.normalize((x - x.mean((2, 3), keepdim=True)).flatten(1), dim=1)
        for x in (one, other)
    )
    return first @ second.T
