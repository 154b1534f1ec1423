"""Copies among finished images: the judges, the definition of a copy, and how far images changed
(Finding NeMo, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from findnemo.metrics.alignment import Alignment
from findnemo.metrics.descriptor import Descriptor, Remembering

if TYPE_CHECKING:
    from PIL import Image

# share of untouched images that must be copies for a prompt to copy: a single pair may be chance
COPYING = 0.5
COPY = 0.7  # similarity of images of different seeds from which one is a copy of the other
# similarity to the training image from which an image is a copy of it (Finding NeMo, section 4:
# SSCD)
TRAINED = 0.7


@dataclass(frozen=True)
class Judges:
    """The judges of finished images, all optional.

    `original`: the training image of the judged prompt.
    """

    descriptor: Descriptor | None = None
    alignment: Alignment | None = None
    original: Image.Image | None = None

    def remembering(self) -> Judges:
        """The judges for a few images that are compared over and over: each is described once."""
        if self.descriptor is None:
            return self
        return replace(self, descriptor=Remembering(self.descriptor))


def compare_images(
    prompt: str, before: Sequence[Image.Image], after: Sequence[Image.Image], judges: Judges
) -> dict[str, float]:
    """Descriptor similarities and alignment of the images of one prompt before and
    after; medians over the seeds.
    """
    values = shares(similarities(before, after, judges))
    if judges.descriptor is not None:
        old = judges.descriptor(before)
        new = judges.descriptor(after)
        values["sscd_gen"] = float((old * new).sum(1).median())
        if len(before) > 1:
            values["d_sscd_before"] = _among(old)
            values["d_sscd_after"] = _among(new)
    if judges.alignment is not None:
        captions = [prompt] * len(before)
        values["a_clip_before"] = float(judges.alignment(before, captions).median())
        values["a_clip_after"] = float(judges.alignment(after, captions).median())
    return values


def similarities(
    before: Sequence[Image.Image], after: Sequence[Image.Image], judges: Judges
) -> dict[str, torch.Tensor]:
    """Similarities that decide for each image of a prompt whether it is a copy, (N,).

    `copies_before`, `copies_after`: from `copying`, for two images or more. With a descriptor and a
    training image also `sscd_orig_before`, `sscd_orig_after`: similarity to the training image.
    """
    found = {}
    for when, images in (("before", before), ("after", after)):
        if len(before) > 1:
            found[f"copies_{when}"] = copying(images, before, judges.descriptor)
        if judges.descriptor is not None and judges.original is not None:
            target = judges.descriptor([judges.original])
            found[f"sscd_orig_{when}"] = (judges.descriptor(images) @ target.T)[:, 0]
    return found


def shares(similarities: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The share of copies in each of `similarities`, or the median of those to a training image.

    >>> shares({"copies_after": torch.tensor([0.7, 0.1]), "sscd_orig_after": torch.tensor([0.25, 0.5, 0.75])})
    {'copies_after': 0.5, 'sscd_orig_after': 0.5}
    """
    return {
        name: float((each >= COPY).float().mean() if name.startswith("copies") else each.median())
        for name, each in similarities.items()
    }


def copying(
    images: Sequence[Image.Image],
    before: Sequence[Image.Image],
    descriptor: Descriptor | None = None,
) -> torch.Tensor:
    """How similar each image of a prompt is to the untouched images of other seeds.

    (N,): its largest similarity, in [-1, 1], to one of them. No training image is needed, because
    all seeds reproduce a memory. `before`: untouched images of the same two or more seeds, in
    order. Similarity is that of the descriptor, or without one the correlation of the pixels.
    """
    one, other = (
        pixel_vectors(i) if descriptor is None else descriptor(i) for i in (images, before)
    )
    return (one @ other.T).fill_diagonal_(-1).amax(1)


def copies_in(values: Mapping[str, float | None], when: str) -> bool | None:
    """Whether the finished images of a caption contain copies; None if none were judged.

    `when`: "before" the neurons are off, or "after". `values`: from `compare_images`.

    Before: most untouched images are copies of the images of other seeds, or their median
    similarity to the training image is .7 or more. After, if untouched images were copies of each
    other: any image is a copy of an untouched one of another seed. Or their median similarity to
    the training image is still .7 or more. If most untouched images are not alike, two similar
    images are chance.

    >>> seen = {"copies_before": 1.0, "copies_after": 0.25}
    >>> copies_in({**seen, "copies_before": 0.25}, "before"), copies_in(seen, "after"), copies_in({}, "after")
    (False, True, None)
    """
    judged = []
    before, after = (values.get(f"copies_{name}") for name in ("before", "after"))
    if before is not None and after is not None:
        many = before >= COPYING
        judged.append(many if when == "before" else many and after > 0)
    trained = values.get(f"sscd_orig_{when}")
    if trained is not None:
        judged.append(trained >= TRAINED)
    return any(judged) if judged else None


def pixel_vectors(images: Sequence[Image.Image]) -> torch.Tensor:
    """Pixels as unit vectors of mean zero: their products are correlations."""
    rows = torch.from_numpy(np.stack([np.asarray(i, np.float32).ravel() for i in images]))
    return torch.nn.functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)


def _among(features: torch.Tensor) -> float:
    first, second = torch.triu_indices(len(features), len(features), 1)
    return float((features[first] * features[second]).sum(1).median())


def pixel_changes(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> list[float]:
    """Mean absolute difference of the pixels of each image before and after, 0 to 1."""
    changes = [
        np.asarray(old, np.float32) - np.asarray(new, np.float32)
        for old, new in zip(before, after, strict=True)
    ]
    return [float(np.abs(change).mean() / 255) for change in changes]
