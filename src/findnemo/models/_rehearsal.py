"""Rehearse a model: ask it everything once on a small latent before any work, and explain in words
what it cannot do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from findnemo.errors import FindnemoError, ModelError, first_line
from findnemo.models._base import Model
from findnemo.runtime.memory import out_of_memory
from findnemo.settings import PAPER

SMALL = 16  # side of the latent; a pass of Stable Diffusion over it takes a second on a CPU


@torch.no_grad()
def rehearse(model: Model) -> None:
    """Raises ModelError that says what the model cannot do, and which parts are involved.

    findnemo's own refusals are not raised here but on use, and so are those of a full device.
    """
    encoders = [part for pair in model.encoders for part in pair]
    steps = PAPER.steps
    tried = partial(_answer, model)
    timesteps = tried(f"give timesteps of {steps} steps", ["scheduler"], model.timesteps, steps)
    text = tried("encode a caption", encoders, model.encode, ["a"])
    channels, *sides = model.latent_shape
    small = [min(side, SMALL) for side in sides]
    latents = torch.zeros(1, channels, *small, device=model.device, dtype=model.dtype)
    if text is not None and timesteps is not None:
        parts = [model.component, *encoders]
        tried("predict noise", parts, model.predict_noise, latents, timesteps[0], text)
    images = tried("decode a latent", ["vae"], model.decode, latents)
    if images is not None:
        tried("encode an image", ["vae"], model.encode_images, images)


def _answer(
    model: Model, what: str, parts: list[str], question: Callable[..., Any], *args: Any
) -> Any:
    """The answer; None if findnemo refuses it, or the device is full.

    Random number generators keep their state.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            return question(*args)
        except FindnemoError:
            return None
        except Exception as error:  # libraries raise anything on parts that do not fit
            if isinstance(error, RuntimeError) and out_of_memory(error):
                return None
            raise ModelError(
                f"this {type(model.pipeline).__name__} cannot {what} ({type(error).__name__}:"
                f" {first_line(error)}), with {_described(model, parts)}: give parts of one model,"
                " with one dtype and on one device, as the checkpoint was published"
            ) from error


def _described(model: Model, names: list[str]) -> str:
    parts = {name: getattr(model.pipeline, name, None) for name in names}
    there = {name: part for name, part in parts.items() if part is not None}
    return ", ".join(f"{name} {type(part).__name__}{_where(part)}" for name, part in there.items())


def _where(part: Any) -> str:
    first = next(part.parameters(), None) if isinstance(part, torch.nn.Module) else None
    if first is None:
        return ""
    return f" ({str(first.dtype).removeprefix('torch.')} on {first.device})"
