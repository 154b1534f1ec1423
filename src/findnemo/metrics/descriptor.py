"""Copy descriptors (SSCD, Pizzi et al. 2022): how much one image is a copy of another, in [-1, 1]."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from findnemo.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 320


class Descriptor:
    """A TorchScript descriptor: `sscd_disc_mixup.torchscript.pt`, or the demo's.

    Preprocessing: squashed to 320 x 320, normalised with ImageNet's mean and deviation.

    TorchScript is a program: load only files that you trust.
    """

    def __init__(self, path: str | os.PathLike, device: str | torch.device = "cpu"):
        if not Path(path).is_file():
            raise InputError(f"no descriptor file {path}: give a TorchScript file such as sscd_disc_mixup.torchscript.pt")
        try:
            self.network = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise InputError(f"{path} is not a TorchScript descriptor: {str(error).splitlines()[0]}") from error
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images -> unit descriptors (N, D)."""
        batch = torch.stack([_prepare(image) for image in images]).to(self.device)
        return torch.nn.functional.normalize(self.network(batch).float(), dim=1).cpu()

    def similarity(self, images: Sequence[Image.Image], other: Sequence[Image.Image]) -> Tensor:
        """Cosine of every image with every other, (N, M)."""
        return self(images) @ self(other).T


def _prepare(image: Image.Image) -> Tensor:
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32) / 255
    return torch.from_numpy(((pixels - np.array(MEAN)) / np.array(STD)).astype(np.float32)).permute(2, 0, 1)
