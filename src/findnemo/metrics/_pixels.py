"""From pictures to a network's input.

Every published number has its own convention, so a convention is a value that can be recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

RGB = tuple[float, float, float]
HALF: RGB = (0.5, 0.5, 0.5)  # mean and standard deviation that give pixels in [-1, 1]


@dataclass(frozen=True)
class Preprocessing:
    """How pictures are resized and normalized.

    Without `resize` a picture becomes `size` x `size`, whatever its shape. With it, the shorter
    side becomes `resize`, and the middle `size` x `size` is cut out. Then (pixel / 255 - mean) /
    std. `resample`: PIL's filter.
    """

    size: int
    mean: RGB
    std: RGB
    resize: int | None = None
    resample: str = "bilinear"

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images -> (N, 3, size, size)."""
        return torch.stack([self._prepare(image) for image in images])

    def _prepare(self, image: Image.Image) -> Tensor:
        import numpy as np

        pixels = np.asarray(self._fitted(image.convert("RGB")), np.float32) / 255
        normal = (pixels - np.array(self.mean)) / np.array(self.std)
        return torch.from_numpy(normal.astype(np.float32)).permute(2, 0, 1)

    def _fitted(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        resample = Image.Resampling[self.resample.upper()]
        if self.resize is None:
            return image.resize((self.size, self.size), resample)
        image = _middle(image)
        short = min(image.size)
        width, height = (side * self.resize // short for side in image.size)
        left, top = (round((side - self.size) / 2) for side in (width, height))
        middle = (left, top, left + self.size, top + self.size)
        return image.resize((width, height), resample).crop(middle)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}


def _middle(image: Image.Image) -> Image.Image:
    """The middle of an image more than four times as long as wide: a strip of one pixel, enlarged
    whole, would fill memory.
    """
    width, height = (min(side, 4 * min(image.size)) for side in image.size)
    if (width, height) == image.size:
        return image
    left = (image.width - width) // 2
    top = (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
