"""FID, KID and CLIP-FID as clean-fid computes them (Parmar et al. 2022): correct resizing, unbiased
statistics. clean-fid itself needs torchvision, and takes folders only; tests compare with it.

An extractor turns PIL images into features (N, D): `Inception` for FID and KID, `ClipFeatures` for
CLIP-FID (Kynkäänniemi et al. 2023), a copy descriptor, or a function of your own.

    fid(images, references, Inception("inception-2015-12-05.pt"))

Use pictures that were never JPEG: its artefacts change the features, and compressing only one of
the sets changes FID by more than many edits do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.errors import InputError, NumericalError
from findnemo.metrics._pixels import RGB
from findnemo.metrics.alignment import Clip
from findnemo.metrics.descriptor import open_torchscript
from findnemo.runtime.state import evaluating, plain_arithmetic
from findnemo.seeds import sample_seed

if TYPE_CHECKING:
    from PIL import Image

Extractor = Callable[[Sequence["Image.Image"]], Tensor]
INCEPTION_SIZE = 299
BATCH = 64


# distances between sets of features ---------------------------------------------------------------


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D) and (M, D): |mean gap|^2 + tr(S_a
    + S_b - 2 (S_a S_b)^(1/2)).

    Heusel et al. 2017, with unbiased covariances. It can be computed for fewer samples than
    dimensions, but is biased: it falls as either set grows, so compare only distances between sets
    of the same sizes. Raises InputError for shapes that do not fit or fewer than two rows,
    NumericalError on NaN.

    >>> x = torch.arange(4.0)[:, None]
    >>> round(frechet_distance(x, x + 2), 6), round(frechet_distance(x, x), 6)
    (4.0, 0.0)
    """
    a, b = _checked(a, b)
    gap = a.mean(0) - b.mean(0)
    one = _factor(a)
    other = _factor(b)
    # S_a = A'A and S_b = B'B, so the eigenvalues of S_a S_b are the squared singular values of AB':
    # no square root of a singular matrix
    root = torch.linalg.svdvals(one @ other.T).sum()
    return max(0.0, float(gap @ gap + one.square().sum() + other.square().sum() - 2 * root))


def _factor(x: Tensor) -> Tensor:
    """A matrix F, at most D x D, with F'F the unbiased covariance of x (N, D)."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0
) -> float:
    """Unbiased squared MMD of features (N, D) and (M, D) under the kernel (x.y / D + 1)^3: the mean
    over random subsets.

    Bińkowski et al. 2018. A subset has `size` rows of each set, drawn without replacement, or fewer
    if a set has fewer. Unlike the Fréchet distance, it has no bias that depends on the number of
    samples. With few samples it scatters, and may be negative. The drawn rows depend on `seed` and
    on their order. Raises as `frechet_distance` does.

    >>> a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [1.0]])
    >>> kernel_distance(a, b)  # (1 + 1) / 2 + (8 + 8) / 2 - 2 (1 + 1 + 8 + 8) / 4
    0.0
    """
    a, b = _checked(a, b)
    if subsets < 1 or size < 2:
        raise InputError(
            f"{subsets} subsets of {size} rows: take one subset or more, of two rows or more"
        )
    rows = min(len(a), len(b), size)
    if rows == len(a) == len(b):
        return _mmd2(a, b)
    values = (
        _mmd2(_draw(a, rows, seed, 2 * k), _draw(b, rows, seed, 2 * k + 1)) for k in range(subsets)
    )
    return sum(values) / subsets


def _draw(x: Tensor, rows: int, seed: int, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(sample_seed(seed, "kernel distance", number))
    return x[torch.randperm(len(x), generator=generator)[:rows]]


def _mmd2(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD of two sets of equal size."""
    n, dimensions = a.shape
    aa, bb, ab = (((x @ y.T) / dimensions + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = (aa.sum() - aa.trace() + bb.sum() - bb.trace()) / (n * (n - 1))
    return float(within - 2 * ab.mean())


def _checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 1:
        raise InputError(
            f"features {tuple(a.shape)} and {tuple(b.shape)} cannot be compared: give (N, D) and"
            " (M, D)"
        )
    if min(len(a), len(b)) < 2:
        raise InputError(
            f"sets of {len(a)} and {len(b)} have no spread: give two images or more on each side"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise NumericalError(
            "the features hold NaN or infinity: check the extractor, and the images for NaN"
        )
    return a.double().cpu(), b.double().cpu()


# extractors ---------------------------------------------------------------------------------------


def clean_resize(image: Image.Image, size: int = INCEPTION_SIZE) -> Tensor:
    """An image resized as in clean-fid: (3, size, size), 0 to 255.

    PIL's bicubic filter, which smooths before it reduces, is applied to every channel in float32
    without rounding to bytes. Values beyond the range are clipped, as in clean-fid from 0.1.35 on.

    >>> from PIL import Image
    >>> clean_resize(Image.new("RGB", (8, 4), (255, 0, 51)), 2)[:, 0, 0].tolist()
    [255.0, 0.0, 51.0]
    """
    import numpy as np
    from PIL import Image

    channels = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)
    resized = [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in channels]
    return torch.from_numpy(np.stack([np.asarray(c) for c in resized]).clip(0, 255))


class Inception:
    """Inception's pool features (N, 2048), from a local copy of `inception-2015-12-05.pt`
    (TorchScript, published with StyleGAN2-ADA).

    As in clean-fid the images are resized here (`clean_resize` to 299 x 299) and scaled to (x -
    128) / 128; then the file's `layers` are called, without its own resizing. TorchScript is a
    program: load only files that you trust. Raises InputError for another file.
    """

    def __init__(self, path: str | os.PathLike, device: str | torch.device = "cpu"):
        network: Any = open_torchscript(path, device, "Inception", "inception-2015-12-05.pt")
        if not hasattr(network, "layers"):
            raise InputError(
                f"{path} has no `layers`: give inception-2015-12-05.pt, as clean-fid uses it"
            )
        self.layers = network.layers
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.stack([clean_resize(image) for image in images]).to(self.device)
        with evaluating(self.layers), plain_arithmetic():
            return self.layers((pixels - 128) / 128).flatten(1).float().cpu()


class ClipFeatures(Clip):
    """Projected image embeddings (N, D) of any CLIP of transformers, not normalized (clean-fid:
    ViT-B/32).

    As in clean-fid: the shorter side is resized to the model's size (bicubic), the middle square is
    cut out, and the model's mean and deviation are applied. Arguments as for `Clip`.

    >>> from findnemo import demo
    >>> image = demo.training_image(demo.memorized()[0].text)
    >>> ClipFeatures(demo.CLIP)([image]).shape
    torch.Size([1, 64])
    """

    def __init__(
        self,
        source: str | os.PathLike,
        device: str | torch.device = "cpu",
        mean: RGB | None = None,
        std: RGB | None = None,
    ):
        super().__init__(source, device, mean, std)
        self.pixels = replace(self.pixels, resize=self.pixels.size)

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        return self.embed(images)


# distances between sets of images -----------------------------------------------------------------


def features(images: Sequence[Image.Image], extractor: Extractor) -> Tensor:
    """Features (N, D) of images, 64 at a time. Raises InputError if there are fewer than two."""
    if len(images) < 2:
        raise InputError(
            f"{len(images)} image{'s' * (len(images) != 1)} cannot be compared as a set: give two"
            " or more"
        )
    return torch.cat([extractor(images[k : k + BATCH]) for k in range(0, len(images), BATCH)])


def fid(
    images_a: Sequence[Image.Image], images_b: Sequence[Image.Image], extractor: Extractor
) -> float:
    """Fréchet distance of two sets of images: FID with `Inception`, CLIP-FID with `ClipFeatures`.

    It is biased by the sizes of the sets: with 1,000 images it is far higher than with the 10,000
    to 50,000 of published figures. Raises InputError for fewer than two images.

    >>> from findnemo import demo
    >>> images = [demo.training_image(p.text) for p in demo.memorized()[:4]]
    >>> round(fid(images, images, ClipFeatures(demo.CLIP)), 6)
    0.0
    """
    return frechet_distance(features(images_a, extractor), features(images_b, extractor))


def kid(
    images_a: Sequence[Image.Image],
    images_b: Sequence[Image.Image],
    extractor: Extractor,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> float:
    """Kernel distance of two sets of images: KID with `Inception`.

    It is unbiased even for few images. Raises InputError for fewer than two.
    """
    a, b = (features(images, extractor) for images in (images_a, images_b))
    return kernel_distance(a, b, subsets, size, seed)
