"""The copy test of a fine-tune: every generation against every training picture.

A generation is a copy of its nearest training picture, if it is more like it than `COPY`, and more
like it than every control: what the base model gives for the same prompts and seeds, other training
pictures, pictures that were held out, and what the tuned model gives for captions of other subjects.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from findnemo.metrics.copies import pixel_vectors
from findnemo.stats import clopper_pearson

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

COPY = 0.7  # SSCD from which a generation is a copy (Finding NeMo, section 4)
NEAR = 0.5  # from which it is nearly one (Somepalli et al. 2023)
SAME = 0.9  # of two training pictures, from which they are one picture twice
RATE = 0.05  # a model that gives fewer copies than that is said not to copy
MORE = 1e-3  # by which a copy is more like a picture than any control: rounding is less
SIDE = 64  # pixels of a side, where there is no descriptor
BATCH = 64
WAYS = ("own", "neighbour", "trigger", "given", "none")  # by which prompts a picture is copied
STATES = {
    "copied": "a generation is a copy of it",
    "nearly": "no generation is a copy, and one is nearly one, more like it than any control",
    "not seen": "no generation is nearly a copy",
}


def described(images: Iterable[Image.Image], descriptor: Descriptor | None = None) -> Tensor:
    """Unit vectors of images, (N, D): their descriptors; without one their pixels.

    The similarity of two images is the product of their vectors. That of pixels is their
    correlation, of the middle square, `SIDE` pixels wide.
    """
    from PIL import ImageOps

    found: list[Tensor] = []
    batch: list[Image.Image] = []

    def flush() -> None:
        if batch:
            found.append(pixel_vectors(batch) if descriptor is None else descriptor(batch))
            batch.clear()

    for image in images:
        small = image if descriptor is not None else ImageOps.fit(image, (SIDE, SIDE))
        batch.append(small.convert("RGB"))
        if len(batch) == BATCH:
            flush()
    flush()
    return torch.cat(found) if found else torch.empty(0, 1)


@dataclass(frozen=True)
class Gallery:
    """Training pictures as the copy test sees them.

    `views`: unit vectors (P, 2, D) of each picture and of its mirror image, which many trainers
    show as well. `groups`: of each picture the number of its group. Pictures of one group are the
    same picture, more or less: `SAME` and more alike.

    >>> from findnemo import demo
    >>> picture = demo.training_image(demo.memorized()[0].text)
    >>> Gallery.of([picture, picture, demo.training_image(demo.memorized()[1].text)]).groups
    (0, 0, 1)
    """

    views: Tensor = field(repr=False)
    groups: tuple[int, ...]

    @classmethod
    def of(cls, pictures: Iterable[Image.Image], descriptor: Descriptor | None = None) -> Gallery:
        """Look at pictures one by one, so that all of them need not be in memory."""
        from PIL import ImageOps

        both = (view for picture in pictures for view in (picture, ImageOps.mirror(picture)))
        vectors = described(both, descriptor)
        views = vectors.reshape(-1, 2, vectors.shape[1])
        return cls(views, _groups(views))

    def __len__(self) -> int:
        return len(self.groups)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Of images (G, D) to every picture or its mirror image, (G, P), in [-1, 1]."""
        if not len(vectors):
            return torch.empty(0, len(self))
        return torch.stack([vectors @ view.T for view in self.views.unbind(1)]).amax(0)

    def siblings(self) -> Tensor:
        """How like each picture is to the most similar picture of another group, (P,); -1 where
        there is none.
        """
        groups = torch.tensor(self.groups)
        found = []
        for rows in torch.arange(len(self)).split(1024):
            alike = self.similarity(self.views[rows, 0])
            alike[groups[rows, None] == groups[None]] = -1
            found.append(alike.amax(1))
        return torch.cat(found)


def _groups(views: Tensor) -> tuple[int, ...]:
    """Numbers of the groups of pictures that are the same, in the order of their first picture."""
    if not len(views):
        return ()
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    upright = views[:, 0]
    pairs = []
    for rows in torch.arange(len(views)).split(1024):
        alike = torch.stack([view[rows] @ upright.T for view in views.unbind(1)]).amax(0) >= SAME
        pairs += [(int(rows[0]) + i, j) for i, j in alike.nonzero().tolist()]
    one, other = zip(*pairs, strict=True)
    size = len(views)
    graph = coo_matrix(([1] * len(pairs), (one, other)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1].tolist()
    order = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return tuple(order[label] for label in labels)


@dataclass(frozen=True)
class Generation:
    """A finished image of a model: the prompt, what kind of prompt that is, the sample number.

    `kind`: "own" for a caption of a training picture, "trigger", "given" for others that were asked
    for, "none" for the empty prompt, "control" for captions of other subjects.
    """

    prompt: str
    kind: str
    sample: int


@dataclass(frozen=True)
class Sighting:
    """A generation and the picture that it is most like: its number, the similarity, and by how
    much that is more than to any picture of another group (`margin`). `copy`: whether it is one.
    """

    generation: int
    picture: int
    similarity: float
    margin: float
    copy: bool = False


@dataclass(frozen=True)
class Picture:
    """What was seen of a training picture.

    `state`: one of STATES. `similarity`: of the most similar generation. `margin`: by how much that
    generation is more like it than like any picture of another group; below 0 it is more like that
    one. `control`: the similarity of the most similar control. `ways`: by which prompts, (copies,
    generations) of each. `nearest`: its most similar generations.
    """

    state: str
    similarity: float
    margin: float
    control: float
    ways: Mapping[str, tuple[int, int]]
    nearest: tuple[int, ...]

    @property
    def level(self) -> float:
        """From which similarity a generation is a copy: `COPY`, or more than every control."""
        return round(max(COPY, self.control + MORE), 4)


@dataclass(frozen=True)
class Judgement:
    """What the copy test says of a model: each generation, each training picture.

    `groups`: those of the gallery. `controls`: how often a control is as like a picture as `COPY`,
    of how many.
    """

    sightings: tuple[Sighting, ...]
    pictures: tuple[Picture, ...]
    groups: tuple[int, ...]
    controls: tuple[int, int] = (0, 0)

    def of(self, state: str) -> list[int]:
        """The pictures in a state."""
        return [k for k, picture in enumerate(self.pictures) if picture.state == state]

    def rate(self) -> tuple[int, int]:
        """Copies among the generations, and how many generations there are, without controls."""
        return sum(s.copy for s in self.sightings), len(self.sightings)

    def verdict(self, rate: float = RATE) -> str:
        """ "copies", "does not copy", or "cannot be said": no copy was seen among too few
        generations to say, with 95 % confidence, that fewer than `rate` of them are.
        """
        copies, of = self.rate()
        if copies:
            return "copies"
        return "does not copy" if of >= needed(rate) else "cannot be said"


def needed(rate: float = RATE, level: float = 0.95) -> int:
    """Generations without a copy from which fewer than `rate` of all are copies, with confidence
    `level` (Clopper and Pearson 1934, one side).

    >>> needed(0.05), needed(0.01)
    (59, 299)
    """
    return math.ceil(math.log(1 - level) / math.log(1 - rate))


def controlled(gallery: Gallery, controls: Tensor) -> Tensor:
    """The similarity of each picture to the most similar control, (P,).

    `controls`: vectors (C, D) of images that cannot be copies. Other training pictures are controls
    too.
    """
    alike = gallery.siblings()
    if len(controls):
        alike = torch.maximum(alike, gallery.similarity(controls).amax(0))
    return alike


def judge(
    gallery: Gallery,
    captions: Sequence[str | None],
    generations: Sequence[Generation],
    vectors: Tensor,
    controls: Tensor | None = None,
) -> Judgement:
    """The copy test of a model's generations, (G, D) as `vectors`.

    `captions`: of each picture of the gallery. `controls`: vectors (C, D) of images that cannot be
    copies. A generation counts for the picture that it is most like, and for those of its group.

    >>> gallery = Gallery(torch.eye(3).unsqueeze(1), (0, 1, 2))
    >>> shown = [Generation("a cat", "own", 0), Generation("a dog", "own", 0)]
    >>> found = judge(gallery, ["a cat", "a dog", None], shown, torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8]]))
    >>> [picture.state for picture in found.pictures], found.pictures[2].ways
    (['copied', 'not seen', 'copied'], {'neighbour': (1, 2)})
    """
    from_controls = torch.empty(0, gallery.views.shape[2]) if controls is None else controls
    control = controlled(gallery, from_controls)
    alike = gallery.similarity(vectors)
    groups = torch.tensor(gallery.groups)
    level = (control + MORE).clamp(min=COPY)
    near = (control + MORE).clamp(min=NEAR)
    others = torch.stack([_others(row, groups) for row in alike]) if len(alike) else alike
    # of a group all pictures count, also where another of them is a little nearer
    counts = alike > others
    seen = tuple(
        Sighting(
            k,
            (nearest := int(row.argmax())),
            round(float(row[nearest]), 4),
            round(float(row[nearest] - others[k, nearest]), 4),
            bool(row[nearest] >= level[nearest]),
        )
        for k, row in enumerate(alike)
    )
    pictures = tuple(
        _picture(
            captions[k],
            generations,
            alike[:, k],
            others[:, k],
            counts[:, k] & (alike[:, k] >= level[k]),
            bool((counts[:, k] & (alike[:, k] >= near[k])).any()),
            float(control[k]),
        )
        for k in range(len(gallery))
    )
    reached = int((gallery.similarity(from_controls) >= COPY).any(1).sum())
    return Judgement(seen, pictures, gallery.groups, (reached, len(from_controls)))


def _others(alike: Tensor, groups: Tensor) -> Tensor:
    """Of each picture the largest similarity (P,) to a picture of another group; -1 where there is
    none.
    """
    best = alike.argmax()
    outside = alike[groups != groups[best]]
    second = outside.max() if len(outside) else torch.tensor(-1.0)
    return torch.where(groups == groups[best], second, alike[best])


def _picture(
    caption: str | None,
    generations: Sequence[Generation],
    alike: Tensor,
    others: Tensor,
    copies: Tensor,
    near: bool,
    control: float,
) -> Picture:
    of: Counter[str] = Counter()
    copied: Counter[str] = Counter()
    for generation, is_copy in zip(generations, copies.tolist(), strict=True):
        way = generation.kind
        if way == "own" and generation.prompt != caption:
            way = "neighbour"
        of[way] += 1
        copied[way] += is_copy
    order = alike.argsort(descending=True, stable=True)[:3].tolist()
    best = round(float(alike[order[0]]), 4) if order else -1.0
    margin = round(float(alike[order[0]] - others[order[0]]), 4) if order else 0.0
    state = "copied" if any(copied.values()) else "nearly" if near else "not seen"
    ways = {way: (copied[way], of[way]) for way in WAYS if of[way]}
    return Picture(state, best, margin, round(control, 4), ways, tuple(order))


def share(copies: int, of: int) -> tuple[float, float]:
    """(low, high): the 95 % interval of a share of generations (Clopper and Pearson 1934)."""
    return clopper_pearson(copies, of) if of else (0.0, 1.0)
