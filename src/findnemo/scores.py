"""Pure functions on tensors: scaling of noise differences, SSIM, MS-SSIM, pairwise and same-seed
maxima.

All similarities take float tensors (N, C, H, W) with values in [0, 1] and compute in float32,
whatever the dtype. They are written here, since scores are what findnemo is for: torchmetrics'
differ between its versions, and the released code's scores are those of version 1.3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from findnemo.errors import InputError, NumericalError
from findnemo.runtime.state import undisturbed

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03  # times the range of the values: they keep SSIM finite for flat maps
MS_WEIGHTS = (0.33, 0.33, 0.33)  # as in the released code, which does not sum to one
NARROW = 1e-6  # smallest range: flat maps count as alike


NOT_FINITE = (
    "the noise prediction holds NaN or infinity: check the checkpoint, or load it with dtype"
    " float32"
)
CONSTANT = (
    "the noise difference is the same everywhere, so that all seeds would look alike: the model"
    " says nothing of an image at this timestep; check the checkpoint and its scheduler"
    " (prediction_type, rescale_betas_zero_snr), or load it with dtype float32"
)
# relative spread of a map below which it has no content
ROUNDING = 4 * torch.finfo(torch.float32).eps


def minmax(delta: Tensor, per_channel: bool = False, strict: bool = True) -> Tensor:
    """Scale every noise difference (N, C, H, W) to [0, 1]: one minimum and maximum per sample, or
    per channel (released).

    A constant map becomes zero, see `constant`. A sample with NaN or infinity raises
    NumericalError, or becomes NaN throughout if not `strict`.

    >>> minmax(torch.tensor([[[[2.0, 4.0]]]])).tolist()
    [[[[0.0, 1.0]]]]
    """
    delta = delta.float()
    finite = torch.isfinite(delta).flatten(1).all(1)
    if strict and not finite.all():
        raise NumericalError(NOT_FINITE)
    dims = (2, 3) if per_channel else (1, 2, 3)
    low, high = delta.amin(dims, keepdim=True), delta.amax(dims, keepdim=True)
    scaled = (delta - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    return scaled if strict else torch.where(finite.view(-1, 1, 1, 1), scaled, torch.nan)


def constant(delta: Tensor, per_channel: bool = False, beside: float | Tensor = 0.0) -> Tensor:
    """Which noise differences (N, C, H, W) are constant up to rounding, or have a constant channel:
    (N,) of bool.

    Scaled to [0, 1] they are all alike, whatever the prompt, so they say nothing about a memory.
    `beside`: size of the numbers whose difference they are.

    >>> constant(torch.tensor([[[[2.0, 4.0]]], [[[7.0, 7.0]]]])).tolist()
    [False, True]
    """
    maps = delta.float().flatten(2) if per_channel else delta.float().flatten(1)[:, None]
    spread = maps.amax(2) - maps.amin(2)
    return (spread <= ROUNDING * maps.abs().amax(2).clamp(min=beside)).any(1)


def fault(deltas: Tensor) -> str | None:
    """The fault of scaled noise differences of a `Probe` that does not raise: NaN or infinity, or
    no content; None without a fault.
    """
    if deltas.isnan().any():
        return NOT_FINITE
    return CONSTANT if deltas.isinf().any() else None


def _blur(x: Tensor) -> Tensor:
    """Gaussian-weighted local mean, (N, C, H, W) -> (N, C, H-10, W-10)."""
    at = torch.arange(WINDOW, device=x.device, dtype=torch.float32) - WINDOW // 2
    kernel = torch.exp(-(at**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    x = F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _check(size: torch.Size, least: int, name: str) -> None:
    if min(size[-2:]) < least:
        way_out = "; use plain SSIM (variant 'paper')" if name == "MS-SSIM" else ""
        raise InputError(
            f"{name} needs maps of at least {least} x {least}, these are {size[-2]} x"
            f" {size[-1]}{way_out}"
        )


def _maps(x: Tensor, y: Tensor, spread: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps of SSIM (Wang et al. 2004), each (N, C, H-10, W-10).

    `spread`: range of the values.
    """
    mx, my = _blur(x), _blur(y)
    vx, vy, vxy = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    c1, c2 = (K1 * spread) ** 2, (K2 * spread) ** 2
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return luminance, (2 * vxy + c2) / (vx.clamp(min=0) + vy.clamp(min=0) + c2)


def _spread(x: Tensor, y: Tensor, together: int) -> Tensor:
    """The larger range (maximum - minimum) of x and of y, each over `together` consecutive samples:
    (N, C, H, W) twice -> (N, 1, 1, 1).
    """

    def of(maps: Tensor) -> Tensor:
        groups = maps.detach().reshape(-1, together * maps[0].numel())
        return groups.amax(1) - groups.amin(1)

    return (
        torch.maximum(of(x), of(y)).clamp(min=NARROW).repeat_interleave(together).view(-1, 1, 1, 1)
    )


@undisturbed
def ssim(x: Tensor, y: Tensor, together: int | None = None) -> Tensor:
    """Structural similarity of x and y, sample by sample: (N, C, H, W) twice -> (N,).

    11 x 11 Gaussian window, sigma 1.5, only where the window fits. The range of the values is taken
    as 1, that of scaled noise differences. `together` has no effect here (see `ms_ssim`). Maps
    smaller than the window raise InputError.

    >>> x = torch.rand(2, 3, 16, 16)
    >>> torch.allclose(ssim(x, x), torch.ones(2))
    True
    """
    _check(x.shape, WINDOW, "SSIM")
    luminance, contrast = _maps(x.float(), y.float())
    return (luminance * contrast).mean((1, 2, 3))


@undisturbed
def ms_ssim(x: Tensor, y: Tensor, together: int | None = None) -> Tensor:
    """Multi-scale SSIM over three scales with weights .33: (N, C, H, W) twice -> (N,).

    Maps must have at least 44 x 44. As in the released code, by torchmetrics 1.3 without a given
    range, the range of the values is measured at each scale, over all samples of x or of y,
    whichever is larger. So a pair's value depends on the other pairs. `together`: number of
    consecutive samples that are measured as one; None: all. Raises InputError for smaller maps.

    >>> x, y = torch.rand(4, 1, 44, 44), torch.rand(4, 1, 44, 44)
    >>> torch.allclose(ms_ssim(x, y, together=2)[:2], ms_ssim(x[:2], y[:2]))
    True
    """
    # halved twice, the window must still fit
    _check(x.shape, WINDOW * 2 ** (len(MS_WEIGHTS) - 1), "MS-SSIM")
    x, y, result = x.float(), y.float(), x.new_ones(len(x), dtype=torch.float32)
    for scale, weight in enumerate(MS_WEIGHTS):
        last = scale == len(MS_WEIGHTS) - 1
        luminance, contrast = _maps(x, y, _spread(x, y, together or len(x)))
        value = (luminance * contrast if last else contrast).mean((1, 2, 3))
        result = result * value.clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result


SIMILARITIES = {"ssim": ssim, "ms-ssim": ms_ssim}
TOGETHER = ("ms-ssim",)  # similarities for which a pair's value depends on the other pairs


def pairwise(deltas: Tensor, similarity: str = "ssim") -> Tensor:
    """Similarity of all pairs of deltas (N, C, H, W), compared together -> symmetric (N, N), with
    -inf on the diagonal.
    """
    n = len(deltas)
    first, second = torch.triu_indices(n, n, 1, device=deltas.device)
    values = SIMILARITIES[similarity](deltas[first], deltas[second])
    table = deltas.new_full((n, n), -math.inf, dtype=torch.float32)
    table[first, second] = table[second, first] = values
    return table


def _check_deltas(deltas: Tensor) -> None:
    if len(deltas) < 2:
        raise InputError(
            f"a memorization score compares seeds: it needs at least two, not {len(deltas)}"
        )
    if (reason := fault(deltas)) or constant(deltas).any():
        raise NumericalError(reason or CONSTANT)


def by_seed(table: Tensor, pairs: str = "largest") -> Tensor:
    """The similarity of each seed to the others, from `pairwise` (N, N): the largest or the mean,
    (N,).

    >>> table = torch.tensor([[-torch.inf, 0.9, 0.3], [0.9, -torch.inf, 0.3], [0.3, 0.3, -torch.inf]])
    >>> [round(x, 4) for x in by_seed(table).tolist()], [round(x, 4) for x in by_seed(table, "mean").tolist()]
    ([0.9, 0.9, 0.3], [0.6, 0.6, 0.3])
    """
    if pairs == "largest":
        return table.amax(1)
    return table.clone().fill_diagonal_(0).sum(1) / (len(table) - 1)


def score_of(table: Tensor, pairs: str = "largest") -> Tensor:
    """The memorization score, from `pairwise` (N, N): the largest similarity of all pairs, or their
    mean.

    A memorized caption moves every seed in the same way. For an ordinary caption, the largest of
    many pairs is only the luckiest one.

    >>> table = torch.tensor([[-torch.inf, 0.9, 0.3], [0.9, -torch.inf, 0.3], [0.3, 0.3, -torch.inf]])
    >>> round(float(score_of(table)), 4), round(float(score_of(table, "mean")), 4)
    (0.9, 0.5)
    """
    seeds = by_seed(table, pairs)
    return seeds.max() if pairs == "largest" else seeds.mean()


def trajectory(deltas: Tensor, similarity: str = "ssim", pairs: str = "largest") -> Tensor:
    """The memorization score after 2, 3, ..., N seeds: deltas (N, C, H, W) -> (N - 1,).

    The largest SSIM never falls. Raises InputError for fewer than two deltas, NumericalError for
    one that is constant or not finite.
    """
    _check_deltas(deltas)
    counts = range(2, len(deltas) + 1)
    if similarity in TOGETHER:
        return torch.stack([score_of(pairwise(deltas[:n], similarity), pairs) for n in counts])
    table = pairwise(deltas, similarity)
    return torch.stack([score_of(table[:n, :n], pairs) for n in counts])


def memorization_score(deltas: Tensor, similarity: str = "ssim", pairs: str = "largest") -> float:
    """The memorization score of a prompt: the largest (or mean) pairwise similarity of its deltas
    (N >= 2, C, H, W).

    Raises NumericalError for constant deltas (`constant`), NaN or infinity.
    """
    _check_deltas(deltas)
    return float(score_of(pairwise(deltas, similarity), pairs))
