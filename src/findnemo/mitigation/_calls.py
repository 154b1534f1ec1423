"""Where mitigations take part in a pipeline's call: in its initial noise, and in the predictions
that its guidance combines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.errors import InputError, ModelError
from findnemo.models import Model, Text
from findnemo.passes.conditioning import Call, check_changeable
from findnemo.passes.gradients import frozen
from findnemo.runtime.state import replacing, undisturbed

ENTRIES = 4 * 64 * 64  # size of the latents for which norms were published
PREPARE = ("prepare_latents", "prepare_intermediate_images")  # methods that draw a pipeline's noise

Difference = Callable[[Tensor], Tensor]
Start = Callable[[Tensor, Difference], Tensor]
Halves = tuple[Tensor, Tensor]


def norms(d: Tensor) -> Tensor:
    """||d||_2 of each image, (N,), of noise differences (N, C, H, W)."""
    return d.float().flatten(1).norm(dim=1)


def fitted(norm: float, latent: Tensor) -> float:
    """A norm published for latents of 4 x 64 x 64, converted to latents of another size.

    A norm grows with the square root of the number of entries: 1.5 becomes .375 for 4 x 16 x 16.

    >>> fitted(1.5, torch.zeros(4, 16, 16))
    0.375
    """
    return norm * (latent.numel() / ENTRIES) ** 0.5


@contextmanager
def starting(model: Model, call: Call, change: Start) -> Iterator[None]:
    """Start each pipeline call that `call` follows from `change(noise, d)` instead of the
    pipeline's own noise.

    `noise`: of one image, (1, C, H, W), float32, as the denoiser sees it, of about unit variance.
    `d`: noise -> eps(x, y) - eps(x, empty) at the first timestep, (1, C, H, W), float32, with the
    image's own prompt. A call of d takes two evaluations, six with a gradient. Images are changed
    one by one, so that none depends on the others of its batch. Raises ModelError for a model whose
    prompts `Model.conditions` does not give completely.
    """
    check_changeable(model)
    empty = model.unconditional()
    pipeline = model.pipeline
    name = next(name for name in PREPARE if hasattr(pipeline, name))
    plain = getattr(pipeline, name)
    drawn: list[Tensor] = []

    def prepare(*args: Any, **kwargs: Any) -> Tensor:
        drawn[:] = [plain(*args, **kwargs).clone()]
        return drawn[0]

    def begin(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        if not (call.following and call.step == 0 and drawn):
            return None
        sample, timestep, *rest = args
        latents = drawn.pop()
        rows = call.rows(len(sample))
        text = model.text_of(kwargs)[rows]
        with call.aside():
            changed = _changed_noise(model, sample[rows], int(timestep), text, empty, change).to(
                sample
            )
        # samplers with sigmas divide latents by this before a pass
        unit = pipeline.scheduler.scale_model_input(latents.new_ones(1), timestep)
        latents.copy_(changed / unit)
        halves = [changed] * (len(sample) // len(changed))
        return (torch.cat(halves), timestep, *rest), kwargs

    hook = model.denoiser.register_forward_pre_hook(begin, with_kwargs=True)
    with hook, replacing(pipeline, name, prepare):
        yield


@undisturbed
def _changed_noise(
    model: Model, noise: Tensor, timestep: int, text: Text, empty: Text, change: Start
) -> Tensor:
    pairs = zip(noise.clone().split(1), text.split(), strict=True)
    with frozen(model.denoiser):
        changed = [change(x.float(), difference(model, timestep, y, empty)) for x, y in pairs]
    return torch.cat(changed)


def difference(model: Model, timestep: float, text: Text, empty: Text) -> Difference:
    """d(x) = eps(x, y) - eps(x, empty), float32, of one latent (1, C, H, W) and one prompt."""
    both = Text.cat([replace(empty, sizes=text.sizes, guidance=text.guidance), text])

    def d(x: Tensor) -> Tensor:
        latents = torch.cat([x, x]).to(model.dtype)
        without, given = model.predict_noise(latents, timestep, both).float().chunk(2)
        return given - without

    return d


@contextmanager
def predicting(
    model: Model, call: Call, change: Callable[[Halves, tuple, dict[str, Any]], Halves]
) -> Iterator[None]:
    """In each step of the pipeline calls that `call` follows, replace both predictions of the
    denoiser by `change(halves, args, kwargs)`.

    `halves`: the predictions without and with the prompt, (N, C, H, W) each. `args`, `kwargs`:
    inputs of the denoiser. The pipeline applies its own guidance to the result: if both halves are
    equal, it steps by that value, whatever the scale. Raises ModelError for a network with guidance
    built in, InputError for a pipeline call without guidance.
    """
    if model.distilled:
        raise ModelError(
            f"a {type(model.pipeline).__name__} has guidance built in, so it cannot be changed step"
            " by step: use methods that leave it alone (neurons, embedding)"
        )

    def exchange(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        if not call.following:
            return None
        whole = output[0]
        rows = call.rows(len(whole))
        if rows.start == 0:
            raise InputError(
                "a mitigation that changes the guidance needs some: call the pipeline with a"
                " guidance_scale above 1"
            )
        channels = model.latent_shape[0]  # a variance may follow them
        changed = whole.clone()
        halves = whole[: rows.start, :channels], whole[rows, :channels]
        changed[:, :channels] = torch.cat(change(halves, args, kwargs))
        return (changed, *output[1:]) if isinstance(output, tuple) else type(output)(changed)

    # before the hook that notices the end of a call
    with model.denoiser.register_forward_hook(exchange, with_kwargs=True, prepend=True):
        yield


def timestep_of(model: Model, call: Call) -> float:
    """The timestep of the current step, in the scheduler's units."""
    return float(model.pipeline.scheduler.timesteps[call.step])


def in_noise(model: Model, difference: Tensor, timestep: float) -> Tensor:
    """The difference of two predictions of the network (eps, v, a velocity), as a difference of
    noise.

    `Model.as_noise` is linear, except for the contribution of the latents, which cancels.
    """
    return model.as_noise(difference, torch.zeros_like(difference), timestep)


def captions(options: dict[str, Any]) -> list[str]:
    """The prompts in a call of a pipeline's `encode_prompt`, from its keyword arguments.

    Raises InputError for a call with prompt_embeds, which shows no prompt, or with prompt_2.
    """
    prompt = options.get("prompt")
    if prompt is None or options.get("prompt_2") is not None:
        raise InputError(
            "the mitigation needs to see the one text of each prompt: call the pipeline with"
            " prompt, without prompt_2 and prompt_embeds"
        )
    return [prompt] if isinstance(prompt, str) else list(prompt)
