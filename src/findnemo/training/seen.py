"""The share of detected canaries: the true-positive rate at a false-positive rate, with its
interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from findnemo.errors import InputError
from findnemo.files.originals import picture
from findnemo.stats import clopper_pearson
from findnemo.training.canaries import Canaries, Canary
from findnemo.training.copies import Gallery, image_vectors

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

FPR = 0.01


@dataclass(frozen=True)
class Seen:
    """Detected canaries of one number of repeats: `hits` of `of`."""

    hits: int
    of: int

    @property
    def rate(self) -> float:
        """The true-positive rate."""
        return self.hits / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high): its 95 % interval (Clopper and Pearson 1934)."""
        return clopper_pearson(self.hits, self.of)


@dataclass(frozen=True)
class Sensitivity:
    """The canaries that a copy test detects: repeats -> `Seen`.

    `threshold`: the similarity above which a canary is detected. `negatives`: number of untrained
    pairs behind the threshold. `fpr`: the largest share of them that exceeds it.
    """

    seen: Mapping[int, Seen]
    threshold: float
    negatives: int
    fpr: float = FPR

    def to_json(self) -> dict[str, Any]:
        seen = {
            str(count): {**asdict(one), "interval": [round(x, 4) for x in one.interval]}
            for count, one in self.seen.items()
        }
        return {**asdict(self), "threshold": round(self.threshold, 4), "seen": seen}


def sensitivity(
    canaries: Canaries | Sequence[Canary], similarity: Tensor, negatives: Tensor, fpr: float = FPR
) -> Sensitivity:
    """The true-positive rate at a false-positive rate of 1 %, for each number of repeats.

    `similarity`: (N, S), of S generations of each canary's caption to its own picture. `negatives`:
    (M, S), of untrained pairs: generations of the captions of canaries and twins, to the twins'
    pictures (`compared` gives both). A canary is detected if its most similar generation is above
    the threshold. That is the least value that the most similar generation of at most `fpr` of the
    negatives exceeds. At 1 % this takes at least 100 negatives. With fewer, none of them could
    exceed it, and the true rate would be smaller than stated. The interval is over canaries. Pairs
    that share a caption or a picture are not independent, so the threshold is less certain than
    from as many independent pairs.

    Raises InputError for fewer negatives than 1 / `fpr`, with the number needed, for different
    numbers of generations, and for NaN.

    >>> import torch
    >>> from pathlib import Path
    >>> planted = [Canary(f"tile {k}", (1, 16)[k % 2], Path(), "", Path()) for k in range(4)]
    >>> alike = torch.tensor([[0.1], [0.9], [0.3], [0.8]])
    >>> found = sensitivity(planted, alike, torch.linspace(0, 0.5, 100)[:, None])
    >>> {count: (one.hits, one.of) for count, one in found.seen.items()}, round(found.threshold, 3)
    ({1: (0, 2), 16: (2, 2)}, 0.495)
    """
    if not 0 < fpr < 1:
        raise InputError(f"fpr {fpr} is not a rate between 0 and 1")
    wanted = math.ceil(round(1 / fpr, 9))
    planted = list(canaries)
    shapes = [tuple(similarity.shape), tuple(negatives.shape)]
    if not planted or similarity.dim() != 2 or shapes[0][0] != len(planted):
        raise InputError(
            f"similarities of shape {shapes[0]} are not those of {len(planted)} canaries: give a row"
            " for each, with a column a generation"
        )
    if negatives.dim() != 2 or shapes[1][1] != shapes[0][1]:
        raise InputError(
            f"negatives of shape {shapes[1]} for canaries of {shapes[0]}: give as many"
            " generations of each"
        )
    if len(negatives) < wanted:
        raise InputError(
            f"{len(negatives)} negatives are too few for a false-positive rate of {fpr:g}: it takes"
            f" {wanted}"
        )
    if not (similarity.isfinite().all() and negatives.isfinite().all()):
        raise InputError("similarities of canaries hold NaN or infinity: look at the images")
    best = similarity.double().amax(1)
    allowed = int(round(fpr * len(negatives), 9))
    threshold = float(negatives.double().amax(1).sort(descending=True).values[allowed])
    hits = (best > threshold).tolist()
    counts = sorted({canary.repeats for canary in planted})
    seen = {}
    for count in counts:
        mine = [hit for hit, one in zip(hits, planted, strict=True) if one.repeats == count]
        seen[count] = Seen(sum(mine), len(mine))
    return Sensitivity(seen, threshold, len(negatives), fpr)


def compared(
    canaries: Canaries,
    images: Sequence[Sequence[Image.Image]],
    twin_images: Sequence[Sequence[Image.Image]] = (),
    descriptor: Descriptor | None = None,
) -> tuple[Tensor, Tensor]:
    """(similarity, negatives), (N, S) and (M, S), the inputs of `sensitivity`.

    `images`: S generations of each canary's caption. `twin_images`: of each twin's caption, or
    none. For N canaries, M is N x N without images of the twins, and twice that with them.
    Similarity is to a picture or its mirror image, by the descriptor, or without one by pixels.

        similarity, negatives = compared(canaries, images, twin_images)
        sensitivity(canaries, similarity, negatives)
    """
    shown = [list(some) for some in (*images, *twin_images)]
    if len(images) != len(canaries) or len(twin_images) not in (0, len(canaries)):
        raise InputError(
            f"images of {len(images)} captions and {len(twin_images)} twins' are not those of"
            f" {len(canaries)} canaries"
        )
    if len({len(some) for some in shown}) != 1 or not shown[0]:
        raise InputError(
            "captions of canaries have different numbers of images: give as many of each"
        )
    vectors = image_vectors((image for some in shown for image in some), descriptor)
    return seen_in(
        canaries, vectors.unflatten(0, (len(shown), -1)), *galleries(canaries, descriptor)
    )


def galleries(canaries: Canaries, descriptor: Descriptor | None = None) -> tuple[Gallery, Gallery]:
    """The pictures of the canaries, and those of their twins, in the form for the copy test."""
    planted = Gallery.of((picture(one.picture) for one in canaries), descriptor)
    return planted, Gallery.of((picture(one.twin) for one in canaries), descriptor)


def seen_in(
    canaries: Canaries, vectors: Tensor, planted: Gallery, twins: Gallery
) -> tuple[Tensor, Tensor]:
    """(similarity, negatives) from vectors (N or 2 N captions, S, D) of images, as `compared` gives
    them.
    """
    count = len(canaries)
    rows = vectors.shape[:2]
    own = planted.similarity(vectors[:count].flatten(0, 1)).unflatten(0, (count, -1))
    similarity = own.diagonal(dim1=0, dim2=2).T
    to_twins = twins.similarity(vectors.flatten(0, 1)).unflatten(0, rows)
    return similarity, to_twins.transpose(1, 2).flatten(0, 1)
