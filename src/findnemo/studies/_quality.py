"""FID, KID, CLIP-FID and A_CLIP of generated images against real pictures
(Finding NeMo, figures 5a and 8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from findnemo.files.originals import MOST_FILE, picture
from findnemo.files.sizes import within_size
from findnemo.images import ImageSettings
from findnemo.metrics import Inception, Judges, frechet_distance, kernel_distance
from findnemo.neurons import NeuronSet
from findnemo.prompts import TrainingPicture
from findnemo.runs.work import Tools
from findnemo.verification import pictured

if TYPE_CHECKING:
    from PIL import Image


GROUP = 64  # images in memory at a time
T = TypeVar("T")
# figure -> the features to compare, and the distance
DISTANCES = {
    "FID": ("look", frechet_distance),
    "KID": ("look", kernel_distance),
    "CLIP-FID": ("clip", frechet_distance),
}
FIGURES = (*DISTANCES, "A_CLIP")
Features = Mapping[str, Tensor]


@dataclass(frozen=True)
class Reference:
    """The reference for the quality of images.

    `pictures`: real pictures, possibly with captions; without any, images of the untouched model on
    other seeds take their place. `inception`: file of `metrics.Inception`; without it FID and KID
    use features of the copy descriptor. `captions`: number of captions to make images of.
    """

    pictures: Sequence[TrainingPicture] = ()
    inception: Path | None = None
    captions: int = 48

    def facts(self, judges: Judges) -> dict[str, Any]:
        """What the figures depend on: digests of pictures and networks."""
        found = hashlib.sha256()
        for one in self.pictures:
            found.update(_digest(one.path).encode())
        inception = None if self.inception is None else _digest(self.inception)[:16]
        named = {"descriptor": judges.descriptor, "clip": judges.alignment}
        return {
            "pictures": len(self.pictures),
            "pictures_sha256": found.hexdigest()[:16] if self.pictures else None,
            "inception_sha256": inception,
            **{k: getattr(judge, "preprocessing", None) for k, judge in named.items()},
        }

    def features(self, judges: Judges) -> Features:
        """Features of the pictures, with one group of them in memory at a time.

        Raises RefusedError naming an unreadable picture.
        """
        images = (picture(one.path) for one in self.pictures)
        return joined(described(group, judges, self.inception) for group in groups(images))


def described(
    images: Sequence[Image.Image], judges: Judges, inception: Path | None
) -> dict[str, Tensor]:
    """Features of images: "look" (N, D), of Inception or the copy descriptor, and "clip" (N, D)."""
    look = judges.descriptor if inception is None else load_inception(inception)
    found = {}
    if look is not None:
        found["look"] = look(images)
    if judges.alignment is not None:
        found["clip"] = judges.alignment.embed(images)
    return found


@cache
def load_inception(inception: Path) -> Inception:
    """Inception, loaded once in a process."""
    return Inception(inception)


def features_and_fits(
    desk: Tools,
    item: tuple[NeuronSet, int],
    prompts: Sequence[str],
    settings: ImageSettings,
    inception: Path | None,
) -> tuple[Features, list[float]]:
    """Features of one image of every prompt with neurons off, on one sample number, and the fit of
    each with its caption if there is a CLIP.
    """
    neurons, sample = item
    parts = []
    fits: list[float] = []
    for group in groups(prompts):
        made = pictured(desk.model, group, sample, settings, desk.judges, neurons)
        parts.append(described(made.images, desk.judges, inception))
        if desk.judges.alignment is not None:
            fits += made.fits.tolist()
    return joined(parts), fits


def figures(real: Features, made: Features, fits: Sequence[float]) -> list[float | None]:
    """FIGURES of images compared with real ones; None without their judge."""
    distances = [
        round(measure(real[of], made[of]), 6) if of in made else None
        for of, measure in DISTANCES.values()
    ]
    return [*distances, round(median(fits), 6) if fits else None]


def joined(parts: Iterable[Features]) -> dict[str, Tensor]:
    """Concatenate the features of groups of images."""
    found = list(parts)
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def groups(items: Iterable[T]) -> Iterator[list[T]]:
    """Items in lists of 64."""
    rest = iter(items)
    while group := list(islice(rest, GROUP)):
        yield group


def _digest(path: Path) -> str:
    return hashlib.sha256(within_size(path, MOST_FILE).read_bytes()).hexdigest()
