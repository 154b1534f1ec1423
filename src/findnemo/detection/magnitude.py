"""The magnitude of what a prompt adds (Wen et al., ICLR 2024), and the tokens that it comes
from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from findnemo.detection._guidance import guided_run, predict
from findnemo.detection._score import Score, mean_score, require_finite
from findnemo.errors import InputError
from findnemo.images import ImageSettings, font
from findnemo.models import Model
from findnemo.passes import counting
from findnemo.runtime.state import undisturbed

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Token = tuple[str, float]


@torch.no_grad()
def magnitude(
    model: Model,
    prompt: str,
    settings: ImageSettings,
    *,
    images: int = 4,
    steps: Sequence[int] = (0,),
    mask: Tensor | None = None,
) -> Score:
    """d = || eps(x_t, y) - eps(x_t, empty) ||_2 of each image, mean over images and over `steps`;
    in units of noise, 0 and more.

    `steps`: positions in a run of `settings.steps` DDIM steps guided by `settings.guidance`. The
    run ends after the last of them; for the first step alone (default), these settings only
    determine t. `mask` (images, 1, H, W): weights of positions, for a local magnitude || m (eps -
    eps) ||_2 / mean(m). Raises InputError for a step outside the run, NumericalError on NaN.
    Source: Wen et al., section 4.1 (four images, one step).

    >>> import findnemo
    >>> model, settings = findnemo.load("demo"), findnemo.demo.image_settings()
    >>> known, other = (magnitude(model, c, settings) for c in ("Liftoff of the Corvus Nine, a white arrow over a checkered floor", "a red star"))
    >>> known.value > other.value, known.evaluations
    (True, 8)
    """
    check_steps(steps, settings)
    with counting(model) as spent:
        run = enumerate(islice(guided_run(model, prompt, images, settings), max(steps) + 1))
        gaps = [step.gap for k, step in run if k in steps]
    return mean_score(torch.cat([norms(gap, mask) for gap in gaps]), spent)


def norms(gap: Tensor, mask: Tensor | None = None) -> Tensor:
    """|| m gap ||_2 / mean(m) of every image: gap (N, C, H, W) and m (N, 1, H,
    W), by default 1, -> (N,).

    >>> norms(torch.tensor([[[[3.0, 4.0]]]])).tolist(), norms(torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[1.0, 0.0]]]])).tolist()
    ([5.0], [6.0])
    """
    if mask is None:
        return gap.flatten(1).norm(dim=1)
    return (mask * gap).flatten(1).norm(dim=1) / mask.flatten(1).mean(1)


def check_steps(steps: Sequence[int], settings: ImageSettings) -> None:
    if not steps or not all(0 <= k < settings.steps for k in steps):
        raise InputError(
            f"steps {tuple(steps)} are not in a run of {settings.steps}: give one or more of 0 to"
            f" {settings.steps - 1}"
        )


@undisturbed
def saliency(model: Model, prompt: str, settings: ImageSettings, *, images: int = 4) -> list[Token]:
    """How much every token of a prompt weighs in its magnitude: (text, value) in the prompt's
    order.

    Start, end and padding are left out. The value is || gradient of the first step's magnitude with
    respect to the token's embedding ||_2 over channels. Embeddings are what the text encoder gives
    the U-Net (`Model.encode`). Takes 6 evaluations an image: two passes, one of them with its
    gradient. Raises NumericalError on NaN. Source: Wen et al., section 4.3 (which tokens trigger a
    memory).

    >>> import findnemo
    >>> [token for token, value in saliency(findnemo.load("demo"), "a red star", findnemo.demo.image_settings())]
    ['a', 'red', 'star']
    """
    tokens = model.tokens(prompt)[model.starts : -1]
    latents = model.noise(prompt, range(images), settings.seed)
    text = model.encode([prompt])
    empty = model.unconditional()
    embedding = text.tokens.clone().requires_grad_()
    with torch.enable_grad():
        first = model.timesteps(settings.steps)[0]
        step = predict(model, latents, first, replace(text, tokens=embedding), empty)
        (slope,) = torch.autograd.grad(norms(step.gap).mean(), embedding)
    values = slope[0].float().norm(dim=1)
    require_finite(values)
    return list(zip(tokens, values[model.starts :].tolist(), strict=False))


# the picture --------------------------------------------------------------------------------------

# pixels
WIDTH = 760
MARGIN = 20
GAP = 6
BAR = 64
TEXT = 30
PALE = (247, 243, 236)
STRONG = (196, 49, 36)
INK = (32, 32, 32)


def saliency_picture(tokens: Sequence[Token], title: str = "") -> Image.Image:
    """The tokens of a caption as a picture, with a bar over each: the redder, the more the token
    weighs.

    The largest bar has full height. `tokens`: from `saliency`; lines break where the picture is
    full. Raises InputError if there are none.

    >>> saliency_picture([("a", 0.1), ("podcast", 0.8)], "where the memory is triggered").size
    (760, 170)
    """
    from PIL import Image, ImageDraw

    if not tokens:
        raise InputError("no tokens: there is nothing to draw, the caption is empty")
    face = font(16)
    small = font(12)
    head = MARGIN + (26 if title else 0)
    places, lines = _layout(tokens, [face.getlength(_shown(text)) + 12 for text, _ in tokens])
    canvas = Image.new("RGB", (WIDTH, head + lines * (BAR + TEXT + GAP) + MARGIN + 4), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN - 6), title, fill=INK, font=small)
    most = max(value for _, value in tokens) or 1.0
    for (text, value), (left, line, width) in zip(tokens, places, strict=True):
        base = head + line * (BAR + TEXT + GAP) + BAR
        _draw_token(draw, (left, base, width), _shown(text), value / most, face)
    return canvas


def _shown(text: str) -> str:
    return "".join(c for c in text.strip() if c.isprintable()) or "·"


def _layout(
    tokens: Sequence[Token], widths: Sequence[float]
) -> tuple[list[tuple[float, int, float]], int]:
    """(left, line, width) of every token, and the number of lines."""
    places = []
    left = float(MARGIN)
    line = 0
    for width in (min(w, WIDTH - 2 * MARGIN) for w in widths):
        if left + width > WIDTH - MARGIN and left > MARGIN:
            left = float(MARGIN)
            line = line + 1
        places.append((left, line, width))
        left += width + GAP
    return places, line + 1


def _draw_token(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float, float],
    text: str,
    share: float,
    font: object,
) -> None:
    left, base, width = place
    right = left + width
    colour = tuple(round(p + share * (s - p)) for p, s in zip(PALE, STRONG, strict=True))
    draw.rectangle((left, base - max(2, share * (BAR - 8)), right, base - 2), fill=colour)
    draw.rectangle((left, base, right, base + TEXT - 4), fill=colour)
    draw.text((left + 6, base + 2), text, fill="white" if share > 0.5 else INK, font=font)  # type: ignore[arg-type]
