"""The attack of Finding DoRI (Kowalczuk et al. 2025): optimize a text embedding until the model
generates a given picture.

The attack needs the weights and the picture. The embedding itself carries information, so it brings
out even pictures that the model never saw, to some degree. So only a curve over the steps of the
attack is evidence, compared with the curve for such pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.errors import InputError, NumericalError
from findnemo.images import ImageSettings, generate, latents_of
from findnemo.models import Model, Text
from findnemo.passes.conditioning import following
from findnemo.passes.gradients import GRADIENT_SCALE, frozen
from findnemo.robustness._subject import AttackedCaption, closeness
from findnemo.runtime.state import undisturbed
from findnemo.seeds import ATTACK, sample_seed

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

LEARNING_RATE = 0.1  # as published, with Adam, for embeddings of standard deviation 1
BATCH = 8  # as published
STEPS = (0, 5, 10, 20, 30, 50)  # steps after which images are made; 50 as published


def diffusion_loss(
    model: Model, clean: Tensor, noise: Tensor, timesteps: Tensor, text: Text
) -> Tensor:
    """Mean squared error (scalar, float32) of the denoiser's prediction for noised latents: of eps
    or v, as the model was trained.

    `clean`, `noise`: (N, C, H, W). `timesteps`: (N,). `text`: N prompts.
    """
    predicted, target = model.regression(clean, noise, timesteps, text)
    return torch.nn.functional.mse_loss(predicted.float(), target.float())


def noise_and_timesteps(
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
def optimized(
    model: Model,
    clean: Tensor,
    text: Text,
    steps: Sequence[int] = STEPS,
    seed: int = 0,
    key: str = "",
    batch: int = BATCH,
    learning_rate: float = LEARNING_RATE,
) -> dict[int, Text]:
    """The prompt, one row, after each of `steps` steps of gradient descent on the diffusion loss of
    one picture.

    The optimizer is Adam, over the token embeddings of all positions. Each step draws a batch of
    `batch` noises and timesteps from (seed, key, step). `clean`: the picture's latent (1, C, H, W).
    `text`: the start, from `model.encode`; the parts of the text other than token embeddings stay
    as they are. `learning_rate`: in units of the embeddings (`unit`), because text encoders differ
    in scale. Raises ModelError for a model without a known loss, NumericalError if it gives NaN.

    >>> import findnemo, torch
    >>> model = findnemo.load("demo")
    >>> text = model.encode(["a red star"])
    >>> texts = optimized(model, torch.zeros(1, *model.latent_shape), text, steps=(0, 1), batch=2)
    >>> bool((texts[0].tokens == text.tokens).all()), bool((texts[1].tokens == text.tokens).all())
    (True, False)
    """
    embedding = text.tokens.detach().float().clone().requires_grad_()
    optimizer = torch.optim.Adam([embedding], lr=learning_rate * unit(embedding))
    reached = {0: text} if 0 in steps else {}
    pictures = clean.expand(batch, -1, -1, -1)
    with frozen(model.denoiser):
        for step in range(1, max(steps, default=0) + 1):
            noise, timesteps = noise_and_timesteps(model, pictures.shape, seed, key, step)
            with torch.enable_grad():
                rows = replace(text, tokens=embedding.to(text.tokens.dtype)).expand(batch)
                loss = GRADIENT_SCALE * diffusion_loss(model, pictures, noise, timesteps, rows)
                (gradient,) = torch.autograd.grad(loss, embedding)
            embedding.grad = gradient / GRADIENT_SCALE
            if not torch.isfinite(embedding.grad).all():
                raise NumericalError(
                    "the attack's gradient holds NaN or infinity: load the model with dtype float32"
                )
            optimizer.step()
            if step in steps:
                reached[step] = replace(text, tokens=embedding.detach().to(text.tokens, copy=True))
    return reached


@torch.no_grad()
def unit(tokens: Tensor) -> float:
    """The power of two nearest to the standard deviation of embeddings.

    It is 1 for Stable Diffusion, for which the learning rate of the attack was published.

    >>> unit(torch.tensor([[[-0.12, 0.12]]])), unit(torch.zeros(1, 2, 3))
    (0.125, 1.0)
    """
    deviation = float(tokens.float().std())
    return 2.0 ** round(math.log2(deviation)) if deviation else 1.0


# starts -------------------------------------------------------------------------------------------


def _random(model: Model, text: Text, seed: int, prompt: str) -> Text:
    """Noise with the mean and the standard deviation of the caption's embedding at each
    position.
    """
    generator = torch.Generator().manual_seed(sample_seed(seed, f"random start\0{prompt}", 0))
    tokens = text.tokens
    noise = torch.randn(tokens.shape, generator=generator).to(tokens)
    return replace(text, tokens=tokens.mean(2, keepdim=True) + tokens.std(2, keepdim=True) * noise)


def _empty(model: Model, text: Text, seed: int, prompt: str) -> Text:
    """The token embeddings of the empty prompt, with all other parts of the caption's text."""
    return replace(text, tokens=model.encode([""]).tokens)


STARTS: dict[str, Callable[[Model, Text, int, str], Text]] = {
    "caption": lambda model, text, seed, prompt: text,
    "random": _random,
    "empty": _empty,
}


def uninformed(starts: Iterable[str]) -> tuple[str, ...]:
    """Those of `starts` that contain nothing of the caption.

    In the untouched model the caption gives its picture before any step. Only a start without the
    caption shows what the search can do.

    >>> uninformed(["caption", "random"])
    ('random',)
    """
    return tuple(start for start in starts if start != "caption")


def starting(model: Model, prompt: str, start: str, seed: int = 0) -> Text:
    """The start of an attack, a text of one row; see STARTS. Raises InputError for an unknown
    start.
    """
    if start not in STARTS:
        raise InputError(f"start {start!r} is not known: use one of {', '.join(STARTS)}")
    return STARTS[start](model, model.encode([prompt]), seed, prompt)


# images from an embedding -------------------------------------------------------------------------


@contextmanager
def embedded(model: Model, text: Text) -> Iterator[None]:
    """Give the pipeline the tokens of `text`, one row, in place of every prompt's while the context
    lasts.
    """

    def change(encode: Callable[..., Any]) -> Callable[..., Any]:
        def encode_prompt(**options: Any) -> tuple[Tensor, ...]:
            embeds, *rest = encode(**options)
            return (text.tokens.to(embeds).expand_as(embeds), *rest)

        return encode_prompt

    with following(model, change):
        yield


def attack(
    model: Model,
    subject: AttackedCaption,
    settings: ImageSettings,
    steps: Sequence[int] = STEPS,
    starts: Sequence[str] = ("caption", "random"),
    images: int = 2,
    descriptor: Descriptor | None = None,
    keep: Callable[[str, int, list[Image.Image]], None] = lambda start, step, images: None,
) -> dict[str, dict[int, list[float]]]:
    """The curve of one subject: start -> step -> similarity of each image to the subject's picture.

    Seeds follow from (settings.seed, subject.prompt, start) and the sample numbers; the images of
    all steps share them. `images`: number at each step. `keep`: called with the images of every
    step. Edits that are in force are attacked too.

    >>> import findnemo
    >>> from findnemo.robustness import subject
    >>> model, settings = findnemo.load("demo"), findnemo.ImageSettings(steps=2)
    >>> curve = attack(model, subject(model, "a red star", settings), settings, (0, 1), ("caption",), 2)
    >>> [(start, list(values)) for start, values in curve.items()]
    [('caption', [0, 1])]
    """
    clean = latents_of(subject.picture, model)
    samples = range(ATTACK, ATTACK + images)
    curves: dict[str, dict[int, list[float]]] = {}
    for start in starts:
        text = starting(model, subject.prompt, start, settings.seed)
        reached = optimized(model, clean, text, steps, settings.seed, f"{start}\0{subject.prompt}")
        curves[start] = {}
        for step, text in reached.items():
            with embedded(model, text):
                pictures = generate(model, subject.prompt, samples, settings)
            keep(start, step, pictures)
            similarities = closeness(pictures, [subject.picture], descriptor).tolist()
            curves[start][step] = [round(value, 4) for value in similarities]
    return curves


def cost(steps: Sequence[int], starts: int, images: int, settings: ImageSettings) -> int:
    """U-Net sample evaluations of one curve; a backward pass counts as two.

    >>> cost((0, 50), 1, 2, ImageSettings(steps=15, guidance=2.0))
    1320
    """
    search = 3 * BATCH * max(steps, default=0)
    return starts * (search + len(steps) * images * settings.passes)
