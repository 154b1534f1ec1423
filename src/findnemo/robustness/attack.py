"""The attack of Finding DoRI (Kowalczuk et al. 2025): a text embedding optimised until the model gives a picture for it.

It needs the weights and the picture. The embedding itself carries information: also pictures that a model never saw come near. So an attack
says something only as a curve over its steps, beside the same curve for such pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.errors import InputError, NumericalError
from findnemo.images import ImageSettings, generate
from findnemo.localization.replication import GRADIENT_SCALE, frozen
from findnemo.models import Model
from findnemo.passes.conditioning import following
from findnemo.robustness._subject import Subject, closeness, latents_of
from findnemo.runtime.state import undisturbed
from findnemo.seeds import ATTACK, sample_seed

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

LEARNING_RATE, BATCH = 0.1, 8  # as published, with Adam
STEPS = (0, 5, 10, 20, 30, 50)  # after which images are made; 50 as published


def diffusion_loss(
    model: Model, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor
) -> Tensor:
    """Mean squared error (scalar, float32) of what the denoiser predicts of noised latents: eps or v, as it was trained.

    `clean`, `noise`: (N, C, H, W). `timesteps`: (N,). `text`: (N, tokens, D).
    """
    predicted, target = model.regression(clean, noise, timesteps, text)
    return torch.nn.functional.mse_loss(predicted.float(), target.float())


def drawn(
    model: Model, shape: Sequence[int], seed: int, key: str, number: int
) -> tuple[Tensor, Tensor]:
    """Fresh noise of a shape (N, C, H, W) and timesteps (N,), the same on every device."""
    generator = torch.Generator().manual_seed(sample_seed(seed, key, number))
    noise = torch.randn(tuple(shape), generator=generator)
    timesteps = torch.randint(
        model.pipeline.scheduler.config.num_train_timesteps, (shape[0],), generator=generator
    )
    return noise.to(model.device, model.dtype), timesteps.to(model.device)


@undisturbed
def optimised(
    model: Model,
    clean: Tensor,
    text: Tensor,
    steps: Sequence[int] = STEPS,
    seed: int = 0,
    key: str = "",
    batch: int = BATCH,
    learning_rate: float = LEARNING_RATE,
) -> dict[int, Tensor]:
    """The embedding (1, tokens, D) after each of `steps` steps of descent on the diffusion loss of one picture.

    Adam, every position of the embedding; a batch of `batch` noises and timesteps drawn afresh each step from (seed, key, step). `clean`:
    the picture's latent (1, C, H, W). `text`: where to begin, as `model.encode` gives it; what a model is told beside the tokens
    (`Model.extras`) stays. Raises ModelError for a model without a known loss, NumericalError if it gives NaN.

    >>> import findnemo, torch
    >>> model = findnemo.load("demo")
    >>> text = model.encode(["a red star"])
    >>> made = optimised(model, torch.zeros(1, *model.latent_shape), text, steps=(0, 1), batch=2)
    >>> bool((made[0] == text).all()), bool((made[1] == text).all())
    (True, False)
    """
    tokens, beside = text.tensor_split([text.shape[1] - model.further(text)], 1)
    embedding = tokens.detach().float().clone().requires_grad_()
    optimizer = torch.optim.Adam([embedding], lr=learning_rate)
    reached = {0: text.detach()} if 0 in steps else {}
    with frozen(model.denoiser):
        for step in range(1, max(steps, default=0) + 1):
            noise, timesteps = drawn(model, (batch, *clean.shape[1:]), seed, key, step)
            with torch.enable_grad():
                rows = torch.cat([embedding.to(text.dtype), beside], 1).expand(batch, -1, -1)
                loss = GRADIENT_SCALE * diffusion_loss(
                    model, clean.expand(batch, -1, -1, -1), noise, timesteps, rows
                )
                (gradient,) = torch.autograd.grad(loss, embedding)
            embedding.grad = gradient / GRADIENT_SCALE
            if not torch.isfinite(embedding.grad).all():
                raise NumericalError(
                    "the attack's gradient holds NaN or infinity: load the model with dtype float32"
                )
            optimizer.step()
            if step in steps:
                reached[step] = torch.cat([embedding.detach().to(text.dtype), beside], 1)
    return reached


# where to begin ---------------------------------------------------------------------------------------------------------------


def _random(model: Model, text: Tensor, seed: int, prompt: str) -> Tensor:
    """Noise with the mean and the deviation that the caption's embedding has at each position."""
    generator = torch.Generator().manual_seed(sample_seed(seed, f"random start\0{prompt}", 0))
    tokens, beside = text.tensor_split([text.shape[1] - model.further(text)], 1)
    noise = torch.randn(tokens.shape, generator=generator).to(tokens)
    return torch.cat(
        [tokens.mean(2, keepdim=True) + tokens.std(2, keepdim=True) * noise, beside], 1
    )


def _empty(model: Model, text: Tensor, seed: int, prompt: str) -> Tensor:
    """The embedding of the empty prompt, beside it what the caption says."""
    count = text.shape[1] - model.further(text)
    return torch.cat([model.encode([""])[:, :count], text[:, count:]], 1)


STARTS: dict[str, Callable[[Model, Tensor, int, str], Tensor]] = {
    "caption": lambda model, text, seed, prompt: text,
    "random": _random,
    "empty": _empty,
}


def starting(model: Model, prompt: str, start: str, seed: int = 0) -> Tensor:
    """An embedding (1, tokens, D) to begin with; see STARTS. Raises InputError for one that is not known."""
    if start not in STARTS:
        raise InputError(f"start {start!r} is not known: use one of {', '.join(STARTS)}")
    return STARTS[start](model, model.encode([prompt]), seed, prompt)


# what the embedding gives -----------------------------------------------------------------------------------------------------


@contextmanager
def embedded(model: Model, text: Tensor) -> Iterator[None]:
    """The pipeline with `text` (1, tokens, D) in place of every prompt's tokens while the context lasts."""
    tokens = text[:, : text.shape[1] - model.further(text)]

    def change(encode: Callable[..., Any]) -> Callable[..., Any]:
        def encode_prompt(**options: Any) -> tuple[Tensor, ...]:
            embeds, *rest = encode(**options)
            return (tokens.to(embeds).expand_as(embeds), *rest)

        return encode_prompt

    with following(model, change):
        yield


def images_of(
    model: Model, subject: Subject, text: Tensor, samples: Sequence[int], settings: ImageSettings
) -> list[Image.Image]:
    """Finished images of an embedding, one a sample number."""
    with embedded(model, text):
        return generate(model, subject.prompt, samples, settings)


def attack(
    model: Model,
    subject: Subject,
    settings: ImageSettings,
    steps: Sequence[int] = STEPS,
    starts: Sequence[str] = ("caption", "random"),
    images: int = 2,
    descriptor: Descriptor | None = None,
    keep: Callable[[str, int, list[Image.Image]], None] = lambda start, step, made: None,
) -> dict[str, dict[int, list[float]]]:
    """The curve of one subject: start -> step -> similarity of each image to the subject's picture.

    Seeds come from (settings.seed, subject.prompt, start) and the sample numbers; `images` of each step share theirs. `keep` is given every
    step's images. Whatever edits are in force are attacked.

    >>> import findnemo
    >>> from findnemo.robustness import subject
    >>> model, settings = findnemo.load("demo"), findnemo.ImageSettings(steps=2)
    >>> curve = attack(model, subject(model, "a red star", settings), settings, (0, 1), ("caption",), 2)
    >>> [(start, list(values)) for start, values in curve.items()]
    [('caption', [0, 1])]
    """
    clean, samples = latents_of(subject.picture, model), range(ATTACK, ATTACK + images)
    curves: dict[str, dict[int, list[float]]] = {}
    for start in starts:
        began = starting(model, subject.prompt, start, settings.seed)
        reached = optimised(model, clean, began, steps, settings.seed, f"{start}\0{subject.prompt}")
        curves[start] = {}
        for step, text in reached.items():
            made = images_of(model, subject, text, samples, settings)
            keep(start, step, made)
            curves[start][step] = [
                round(v, 4) for v in closeness(made, [subject.picture], descriptor).tolist()
            ]
    return curves


def cost(steps: Sequence[int], starts: int, images: int, settings: ImageSettings) -> int:
    """U-Net sample evaluations of one curve; a backward pass counts as two.

    >>> cost((0, 50), 1, 2, ImageSettings(steps=15, guidance=2.0))
    1320
    """
    passes = settings.steps * (2 if settings.guidance > 1 else 1)
    return starts * (3 * BATCH * max(steps, default=0) + len(steps) * images * passes)
