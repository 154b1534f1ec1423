"""A model is asked everything once, on a small latent, before any work: what it cannot answer is said in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from findnemo.errors import FindnemoError, ModelError
from findnemo.models._base import Model
from findnemo.models._single_file import first_line
from findnemo.runtime.memory import out_of_memory
from findnemo.settings import PAPER

SMALL = 16  # sides of the latent; a pass of Stable Diffusion over it takes a second on a CPU


@torch.no_grad()
def rehearse(model: Model) -> None:
    """Raises ModelError that says what the model cannot do, with the parts that are at it.

    What findnemo itself refuses is left to where it is asked for; so is a device that is full.
    """
    encoders = [part for pair in model.encoders for part in pair]
    timestep = _tried(
        model,
        f"give timesteps of {PAPER.steps} steps",
        ("scheduler",),
        lambda: model.timesteps(PAPER.steps)[0],
    )
    text = _tried(model, "encode a caption", encoders, lambda: model.encode(["a"]))
    small = (model.latent_shape[0], *(min(side, SMALL) for side in model.latent_shape[1:]))
    latents = torch.zeros(1, *small, device=model.device, dtype=model.dtype)
    if text is not None and timestep is not None:
        at_it = (model.component, *encoders)
        _tried(model, "predict noise", at_it, lambda: model.predict_noise(latents, timestep, text))
    images = _tried(model, "decode a latent", ("vae",), lambda: model.decode(latents))
    if images is not None:
        _tried(model, "encode an image", ("vae",), lambda: model.encode_images(images))


def _tried(model: Model, what: str, parts: Any, answer: Callable[[], Any]) -> Any:
    """The answer; None where findnemo refuses it, or the device has no room."""
    with _same_draws():
        try:
            return answer()
        except FindnemoError:
            return None
        except Exception as error:  # libraries raise anything on parts that do not fit
            if isinstance(error, RuntimeError) and out_of_memory(error):
                return None
            raise ModelError(
                f"this {type(model.pipeline).__name__} cannot {what} ({type(error).__name__}: {first_line(error)}), with {_described(model, parts)}: "
                "give parts of one model, with one dtype and on one device, as the checkpoint was published"
            ) from error


@contextmanager
def _same_draws() -> Iterator[None]:
    """Leave the generator of random numbers as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def _described(model: Model, parts: Any) -> str:
    there = [(name, getattr(model.pipeline, name, None)) for name in parts]
    return ", ".join(
        f"{name} {type(part).__name__}{_where(part)}" for name, part in there if part is not None
    )


def _where(part: Any) -> str:
    first = next(part.parameters(), None) if isinstance(part, torch.nn.Module) else None
    return (
        "" if first is None else f" ({str(first.dtype).removeprefix('torch.')} on {first.device})"
    )
