"""Copy descriptors (SSCD, Pizzi et al. 2022): how much one image is a copy of another, in [-1,
1].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from findnemo.errors import InputError, first_line
from findnemo.files.digests import sha256
from findnemo.metrics._once import once
from findnemo.metrics._pixels import HALF, Preprocessing
from findnemo.runtime.state import evaluating, plain_arithmetic

if TYPE_CHECKING:
    from PIL import Image

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CONVENTIONS = {
    "sscd": Preprocessing(320, MEAN, STD),
    "half": Preprocessing(224, HALF, HALF, resize=256),
}


def open_torchscript(
    path: str | os.PathLike, device: str | torch.device, what: str, example: str
) -> nn.Module:
    """A TorchScript network in evaluation mode.

    Raises InputError if the file is missing or something else.
    """
    if not Path(path).is_file():
        raise InputError(f"no {what} file {path}: give a TorchScript file such as {example}")
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise InputError(f"{path} is not a TorchScript {what}: {first_line(error)}") from error


class Descriptor:
    """A TorchScript descriptor: `sscd_disc_mixup.torchscript.pt`, or the demo's.

    `preprocessing`: "sscd", resized to 320 x 320 regardless of shape and normalized with ImageNet's
    mean and deviation, as in the SSCD paper and in Finding NeMo; or "half", the shorter side to
    256, the middle 224 x 224, mean and deviation .5 (Somepalli et al. 2023). Numbers of the two are
    not comparable: record the attribute `preprocessing`, which also names the file, with them.

    TorchScript is a program: load only files that you trust. Raises InputError for an unknown file
    or convention.

    >>> from findnemo import demo
    >>> descriptor = Descriptor(demo.DESCRIPTOR)
    >>> image = demo.training_image(demo.memorized()[0].text)
    >>> round(float(descriptor.similarity([image], [image])), 3)
    1.0
    >>> descriptor.preprocessing["size"], descriptor.preprocessing["file"]
    (320, 'descriptor.pt')
    """

    def __init__(
        self,
        path: str | os.PathLike,
        device: str | torch.device = "cpu",
        preprocessing: str = "sscd",
    ):
        if preprocessing not in CONVENTIONS:
            raise InputError(
                f"preprocessing {preprocessing!r} is not known: use one of {', '.join(CONVENTIONS)}"
            )
        self.network = open_torchscript(
            path, device, "descriptor", "sscd_disc_mixup.torchscript.pt"
        )
        self.path = Path(path)
        self.device = torch.device(device)
        self.convention = preprocessing

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle its source: another process opens the file, once."""
        return once, (type(self), self.path, str(self.device), self.convention)

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """What its numbers depend on: the convention with size, resizing, mean and deviation,
        the file's name and 16 digits of its SHA-256.
        """
        pixels = CONVENTIONS[self.convention].to_json()
        about = {"file": self.path.name, "sha256": sha256(self.path)[:16]}
        return {"name": self.convention, **pixels, **about}

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images -> unit descriptors (N, D)."""
        batch = CONVENTIONS[self.convention](images).to(self.device)
        with evaluating(self.network), plain_arithmetic():
            return torch.nn.functional.normalize(self.network(batch).float(), dim=1).cpu()

    def similarity(self, images: Sequence[Image.Image], other: Sequence[Image.Image]) -> Tensor:
        """Cosine of every image with every other, (N, M)."""
        return self(images) @ self(other).T


class Remembering(Descriptor):
    """A descriptor that describes an image object once, with `describe`: images -> (N, D).

    It keeps all images that it has seen, so it is for one judgement. Images must not change
    meanwhile.

    >>> seen = []
    >>> describe = Remembering(lambda images: seen.extend(images) or torch.ones(len(images), 3))
    >>> describe(["a", "b", "a"]).shape, describe(["b"]).shape, seen
    (torch.Size([3, 3]), torch.Size([1, 3]), ['a', 'b'])
    """

    def __init__(self, describe: Callable[[Sequence[Image.Image]], Tensor]) -> None:
        self.describe = describe
        self._known: dict[int, tuple[Image.Image, Tensor]] = {}

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        new = {id(image): image for image in images if id(image) not in self._known}
        if new:
            rows = self.describe([*new.values()])
            self._known |= {key: (new[key], row) for key, row in zip(new, rows, strict=True)}
        return torch.stack([self._known[id(image)][1] for image in images])
