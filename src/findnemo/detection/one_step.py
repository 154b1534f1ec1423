"""One-step extraction (Webster 2023): for a memorized caption, a single step from pure noise
already gives the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from findnemo.detection._guidance import diffusion, effective, predict, pure_noise
from findnemo.detection._score import Score, mean_score, require_finite
from findnemo.errors import InputError, ModelError
from findnemo.images import ImageSettings, to_pil
from findnemo.models import Model
from findnemo.passes import counting

if TYPE_CHECKING:
    from PIL import Image

GUIDANCE = 7.5
# pixels; Sobel magnitude summed over RGB values in [0, 1]
SIZE = 256
EDGE = 1.5
# 1, 2, 1 with the outer channels repeated
CHANNELS = torch.tensor([[3.0, 1, 0], [1, 2, 1], [0, 1, 3]])
# summed absolute difference of RGB in [0, 1]
AGREE = 0.03
# pixels
ERODE = 3
DILATE = 6


def one_step(
    model: Model,
    prompt: str,
    settings: ImageSettings,
    *,
    images: int = 1,
    guidance: float = GUIDANCE,
) -> Score:
    """White-box score: mean squared difference of the scaled initial latent z and the one-step
    result x_0, mean over images; 0 and more.

    Larger is more memorized, so nothing is negated. For x_0 = z - sigma eps (see `extracted`) the
    difference is sigma eps, so the score is sigma^2 mean(eps^2) of the guided noise. The prompt's
    part of that noise, amplified by `guidance`, is large for a memory: the score is a relative of
    Wen et al.'s magnitude. `settings` gives only the seed. Two evaluations an image. Raises
    NumericalError on NaN. Source: Webster 2023, section 3 (denoising confidence score; one seed).

    >>> import findnemo
    >>> model, settings = findnemo.load("demo"), findnemo.demo.image_settings()
    >>> one_step(model, "a red star", settings).evaluations
    2
    """
    with counting(model) as spent:
        z, x0 = extracted(model, prompt, images, settings.seed, guidance)
    return mean_score((z - x0).square().flatten(1).mean(1), spent)


@torch.no_grad()
def extracted(
    model: Model, prompt: str, images: int, seed: int, guidance: float = GUIDANCE
) -> tuple[Tensor, Tensor]:
    """(z, x_0), each (images, C, H, W) float32: the scaled initial latents and the result of one
    step.

    In Karras' form a noisy latent is z = x_0 + sigma eps. A schedule of one step is (sigma_max, 0),
    and Heun's step to 0 has no second half, so it is Euler's: x_0 = z + (0 - sigma) eps. The model
    itself is trained on x_t = sqrt(a) x_0 + sqrt(1 - a) eps. Dividing by sqrt(a) shows that both
    are equal with sigma = sqrt((1 - a) / a), so the model sees x_t = sqrt(a) z. At the last
    training timestep z is sigma_max times Gaussian noise. A v-prediction model gives eps = sqrt(1 -
    a) x_t + sqrt(a) v, hence x_0 = sqrt(a) x_t - sqrt(1 - a) v, which is computed here
    (`DiffusionModel.image`): in eps, the difference between prompts is lost next to x_t. Source:
    Karras et al. 2022, Algorithm 1; Salimans and Ho 2022, appendix D. Raises ModelError if a is
    zero, because sigma is then infinite.
    """
    network = diffusion(model)
    last = int(model.pipeline.scheduler.config.num_train_timesteps) - 1
    a = network.alpha(last).to(model.device)
    if a == 0:
        raise ModelError(
            f"timestep {last} is pure noise in this schedule (zero terminal SNR): one-step"
            " extraction is not defined there"
        )
    sigma = ((1 - a) / a).sqrt()
    z = sigma * pure_noise(model, prompt, images, seed).float()
    seen = (a.sqrt() * z).to(model.dtype)
    step = predict(model, seen, last, model.encode([prompt]), model.unconditional())
    guided = step.guided(effective(model, guidance))
    return seen.float() / a.sqrt(), network.image(guided, seen, last)


# edges: only from images --------------------------------------------------------------------------


def edges(
    model: Model,
    prompt: str,
    settings: ImageSettings,
    *,
    images: int = 4,
    guidance: float = GUIDANCE,
) -> Score:
    """Black-box score: the share of pixels, 0 to 1, that are an edge in more than half of the
    one-step images of four seeds.

    After one step an ordinary caption gives a blur with few edges, different for each seed.
    `settings` gives only the seed. Two evaluations an image. Raises NumericalError on NaN. Source:
    Webster 2023, section 4 (edge consistency).

    >>> import findnemo
    >>> edges(findnemo.load("demo"), "a red star", findnemo.demo.image_settings()).evaluations
    8
    """
    with counting(model) as spent:
        pictures = one_step_images(model, prompt, images, settings.seed, guidance)
    return mean_score(torch.tensor([edge_consistency(pictures)]), spent)


@torch.no_grad()
def one_step_images(
    model: Model, prompt: str, images: int, seed: int, guidance: float = GUIDANCE
) -> list[Image.Image]:
    """The one-step images of a prompt, decoded, at the model's size.

    Raises NumericalError on NaN.
    """
    _, x0 = extracted(model, prompt, images, seed, guidance)
    decoded = model.decode(x0)
    require_finite(decoded)  # a picture would hide it
    return to_pil(decoded)


def edge_consistency(images: Sequence[Image.Image]) -> float:
    """Share of pixels that are an edge in more than half of the images, at 256 x 256."""
    from PIL import Image

    if not images:
        raise InputError("no images: edge consistency compares one or more")
    pixels = torch.stack(
        [_rgb(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for image in images]
    )
    return float((edge_map(pixels).float().mean(0) > 0.5).float().mean())


def edge_map(pixels: Tensor) -> Tensor:
    """Where the Sobel magnitude, summed over RGB, exceeds 1.5: (N, 3, H, W) in [0, 1] -> (N, H, W)
    of bool.

    The published threshold belongs to a Sobel filter over the whole array (H, W, 3), which weighs
    neighbouring channels 1, 2, 1 too: a grey edge counts four times as much as in one channel
    alone.
    """
    smooth = torch.tensor([1.0, 2.0, 1.0])
    slope = torch.tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    mixed = torch.einsum("dc,nchw->ndhw", CHANNELS, pixels)
    padded = F.pad(mixed.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    magnitude = F.conv2d(padded, kernels).norm(dim=1).unflatten(0, pixels.shape[:2])
    return magnitude.sum(1) > EDGE


def template_mask(image: Image.Image, other: Image.Image) -> Tensor:
    """Where two near-duplicates agree, which is what a template fixes: (H, W) of bool, True for the
    template.

    The summed absolute difference of RGB in [0, 1] is under .03. The mask is eroded 3 x 3 to remove
    single pixels, and dilated 6 x 6 to close holes. Raises InputError for images of different
    sizes. Source: Webster 2023, section 5 (template verbatims).
    """
    if image.size != other.size:
        raise InputError(
            f"near-duplicates of {image.size} and {other.size} pixels cannot be laid over each"
            " other: resize one"
        )
    agree = (_rgb(image) - _rgb(other)).abs().sum(0) < AGREE
    return _dilate(_erode(agree, ERODE), DILATE)


def _dilate(mask: Tensor, size: int) -> Tensor:
    """True where any pixel of the size x size window is True; an even window reaches further back,
    up and to the left.
    """
    before, after = (size - 1) // 2, size // 2
    padded = F.pad(mask[None, None].float(), (before, after, before, after))
    return F.max_pool2d(padded, size, stride=1)[0, 0] > 0


def _erode(mask: Tensor, size: int) -> Tensor:
    """True where every pixel of the window is True; pixels beyond the border are False."""
    padded = F.pad(mask[None, None].float(), [(size - 1) // 2, size // 2] * 2)
    return -F.max_pool2d(-padded, size, stride=1)[0, 0] > 0


def _rgb(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    import numpy as np

    return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)
