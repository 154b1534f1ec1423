"""A_CLIP: cosine of the CLIP embeddings of an image and a caption."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.errors import InputError, first_line
from findnemo.metrics._once import once
from findnemo.metrics._pixels import HALF, RGB, Preprocessing
from findnemo.models import Reader
from findnemo.runtime.notices import notice
from findnemo.runtime.state import evaluating, plain_arithmetic

if TYPE_CHECKING:
    from PIL import Image

CONFIG = "preprocessor_config.json"


class Clip:
    """Any CLIP of transformers with its preprocessing, from a directory or hub id (safetensors
    only).

    `mean`, `std`: of the pixels in [0, 1]; by default those in the checkpoint's
    preprocessor_config.json, or those for [-1, 1] if it has none. Raises InputError for a source
    that is no CLIP, or for only one of `mean` and `std`.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        device: str | torch.device = "cpu",
        mean: RGB | None = None,
        std: RGB | None = None,
    ):
        from transformers import CLIPModel

        try:
            model: Any = CLIPModel.from_pretrained(
                str(source), use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"no CLIP {str(source)!r}: give a directory or a hub id with safetensors"
                f" ({first_line(error)})"
            ) from error
        self.model = model.to(device).eval()
        self.source = str(source)
        self.device = torch.device(device)
        size = model.config.vision_config.image_size
        self.pixels, self.convention = _preprocessing(self.source, size, mean, std)

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """What its numbers depend on: size, resizing, mean, deviation and their origin (`name`),
        the checkpoint and 16 digits of its weights' SHA-256.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        place = Path(self.source)
        source = place.name if place.is_dir() else self.source  # its folder does not matter
        about = {"source": source, "sha256": digest.hexdigest()[:16]}
        return {"name": self.convention, **self.pixels.to_json(), **about}

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images -> projected image embeddings (N, D), not normalized."""
        pixels = self.pixels(images).to(self.device)
        with evaluating(self.model), plain_arithmetic():
            return _tensor(self.model.get_image_features(pixels))


class Alignment(Clip):
    """A_CLIP by any CLIP (arguments as for `Clip`); `tokenizer`: its place, if elsewhere.

    >>> from findnemo import demo
    >>> alignment = demo.judges().alignment
    >>> image, caption = demo.training_image(demo.memorized()[0].text), demo.memorized()[0].text
    >>> alignment([image], [caption]).shape
    torch.Size([1])
    """

    def __init__(
        self,
        source: str | os.PathLike,
        tokenizer: str | os.PathLike | None = None,
        device: str | torch.device = "cpu",
        mean: RGB | None = None,
        std: RGB | None = None,
    ):
        from transformers import CLIPTokenizer

        super().__init__(source, device, mean, std)
        self.tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer or source))
        self.told: set[str] = set()  # truncated captions already reported
        self._opened = (source, tokenizer, str(device), mean, std)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle its source: another process opens it, once."""
        return once, (type(self), *self._opened)

    @property
    def reader(self) -> Reader:
        """The reader that says how much of a caption it reads."""
        limit = self.model.config.text_config.max_position_embeddings
        return Reader("the judge's CLIP", self.tokenizer, limit)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
        """Cosine of image k with caption k, (N,). Warns of captions that it truncates.

        Raises InputError if their numbers differ.
        """
        if len(images) != len(captions):
            raise InputError(
                f"images: {len(images)}, captions: {len(captions)}; give one caption for every image"
            )
        reader = self.reader
        for caption in dict.fromkeys(captions):
            if caption not in self.told and (count := reader.count(caption)) > reader.limit:
                self.told.add(caption)
                notice(
                    f"{caption[:60]!r}: {count} tokens; {reader.name} reads {reader.limit} of them"
                )
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=reader.limit,
            return_tensors="pt",
        )
        with evaluating(self.model), plain_arithmetic():
            text = _tensor(self.model.get_text_features(**tokens.to(self.device)))
        return torch.nn.functional.cosine_similarity(self.embed(images), text)


def _tensor(output: Any) -> Tensor:
    tensor: Tensor = getattr(output, "pooler_output", output)  # transformers 4 returns the tensor
    return tensor.float().cpu()


def _preprocessing(
    source: str, size: int, mean: RGB | None, std: RGB | None
) -> tuple[Preprocessing, str]:
    """A checkpoint's preprocessing, and its origin."""
    if (mean is None) != (std is None):
        raise InputError("mean and std belong together: give both, or neither")
    config = _config(source)
    resize = _shorter_side(config, size) if config.get("do_center_crop") else None
    if mean is not None and std is not None:
        return Preprocessing(size, mean, std, resize, "bicubic"), "given"
    mean, std = (tuple(config.get(key, HALF)) for key in ("image_mean", "image_std"))
    source_of_both = CONFIG if config else "no preprocessor_config.json: [-1, 1]"
    return Preprocessing(size, mean, std, resize, "bicubic"), source_of_both


def _config(source: str) -> dict[str, Any]:
    """The content of the checkpoint's preprocessor_config.json; empty if it has none.

    Raises InputError if that is unknown (no connection) or unreadable: with the wrong mean the
    figures would be wrong without any sign of it.
    """
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(source, CONFIG, _raise_exceptions_for_missing_entries=False)
        return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{CONFIG} of {source} cannot be read ({error!s:.200}): give a directory that holds it"
        ) from error


def _shorter_side(config: dict[str, Any], size: int) -> int:
    value = config.get("size", size)
    return int(value.get("shortest_edge", size) if isinstance(value, dict) else value)
