"""The copy test of a fine-tune: every generation against every training picture.

A generation is a copy of its nearest training picture if their similarity is at least `COPY`, and
higher than that of controls, which cannot be copies: images of the base model, other training
pictures, and held-out pictures. Higher means two things: higher than each control, and so far above
their mean that it is no chance among all compared pairs. For the latter, normal tails of Fisher's
transformation atanh(r) (Fisher 1921) get Bonferroni's correction, 5 % for a whole test.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from findnemo.metrics.copies import COPYING, pixel_vectors
from findnemo.stats import clopper_pearson

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor

COPY = 0.7  # SSCD from which a generation is a copy (Finding NeMo, section 4)
NEAR = 0.5  # SSCD from which it is nearly one (Somepalli et al. 2023)
SAME = 0.9  # SSCD from which two training pictures count as one
RATE = 0.05  # a model with a smaller share of copies is said not to copy
CHANCE = 0.05  # probability that any pair of a test is called a copy by chance
BOUND = 0.9999  # largest similarity before Fisher's transformation
MORE = 1e-3  # least difference between a copy and any control: rounding is less
SIDE = 64  # pixels of a side, without a descriptor
BATCH = 64
WAYS = ("own", "neighbour", "trigger", "given", "none", "control")  # prompts that copy a picture
AS_BASE = "as the base"
VERDICTS = ("copies", AS_BASE, "does not copy", "cannot be said")
MAIN = ("own", "trigger", "given")  # kinds of prompts for a rate: the first that exists
STATES = {
    "copied": "a generation is a copy of it",
    "as a control": (
        "a generation is as like it as a copy, but so is what cannot be a copy: it cannot be told"
    ),
    "nearly": "a generation is nearly a copy, more like it than any control",
    "not seen": "no generation is nearly a copy",
}


def image_vectors(images: Iterable[Image.Image], descriptor: Descriptor | None = None) -> Tensor:
    """Unit vectors of images, (N, D): their descriptors, or without a descriptor their pixels.

    The similarity of two images is the product of their vectors. That of pixels is the correlation
    of the middle squares, `SIDE` pixels wide.
    """
    from PIL import ImageOps

    if descriptor is None:
        images = (ImageOps.fit(image, (SIDE, SIDE)) for image in images)
    plain = (image.convert("RGB") for image in images)
    found: list[Tensor] = []
    while batch := list(islice(plain, BATCH)):
        found.append(pixel_vectors(batch) if descriptor is None else descriptor(batch))
    return torch.cat(found) if found else torch.empty(0, 1)


@dataclass(frozen=True)
class Gallery:
    """Training pictures in the form for the copy test.

    `views`: unit vectors (P, 2, D) of each picture and of its mirror image, which many trainers
    show too. `groups`: number of the group of each picture. Pictures of one group are about the
    same: their similarity is at least `SAME`.

    >>> from findnemo import demo
    >>> picture = demo.training_image(demo.memorized()[0].text)
    >>> Gallery.of([picture, picture, demo.training_image(demo.memorized()[1].text)]).groups
    (0, 0, 1)
    """

    views: Tensor = field(repr=False)
    groups: tuple[int, ...]

    @classmethod
    def of(cls, pictures: Iterable[Image.Image], descriptor: Descriptor | None = None) -> Gallery:
        """Describe pictures one by one, so that they need not all be in memory."""
        from PIL import ImageOps

        both = (view for picture in pictures for view in (picture, ImageOps.mirror(picture)))
        vectors = image_vectors(both, descriptor)
        views = vectors.reshape(-1, 2, vectors.shape[1])
        return cls(views, _groups(views))

    def __len__(self) -> int:
        return len(self.groups)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Similarity of images (G, D) to every picture or its mirror image, (G, P), in [-1, 1]."""
        if not len(vectors):
            return torch.empty(0, len(self))
        return torch.stack([vectors @ view.T for view in self.views.unbind(1)]).amax(0)

    def of_groups(self, alike: Tensor) -> Tensor:
        """Similarities to groups (N, K), from those to pictures (N, P): that of the most similar
        picture.
        """
        many = max(self.groups, default=-1) + 1
        index = torch.tensor(self.groups).expand(len(alike), -1)
        return torch.full((len(alike), many), -1.0).scatter_reduce(1, index, alike.float(), "amax")

    def siblings(self) -> Tensor:
        """Similarities of each picture to every group (P, K); NaN for its own."""
        alike = self.of_groups(self.similarity(self.views[:, 0]))
        alike[torch.arange(len(self)), torch.tensor(self.groups)] = torch.nan
        return alike


def _groups(views: Tensor) -> tuple[int, ...]:
    """Group number of each picture; groups of equal pictures are in the order of their first
    picture.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = len(views)
    if not size:
        return ()
    upright = views[:, 0]
    one, other = [torch.arange(size)], [torch.arange(size)]  # a flat picture resembles none
    for rows in torch.arange(size).split(1024):
        alike = torch.stack([view[rows] @ upright.T for view in views.unbind(1)]).amax(0) >= SAME
        first, second = alike.nonzero(as_tuple=True)
        one.append(first + rows[0])
        other.append(second)
    pairs = (torch.cat(one).numpy(), torch.cat(other).numpy())
    graph = coo_matrix((torch.ones(len(pairs[0])).numpy(), pairs), shape=(size, size))
    labels = connected_components(graph, directed=False)[1].tolist()
    order = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return tuple(order[label] for label in labels)


@dataclass(frozen=True)
class Generation:
    """A finished image of a model: the prompt, its kind, the sample number.

    `kind`: "own" for a caption of a training picture, "trigger", "given" for other requested
    prompts, "none" for the empty prompt, "control" for captions of other subjects.
    """

    prompt: str
    kind: str
    sample: int


@dataclass(frozen=True)
class Sighting:
    """A generation with its most similar picture: number of the picture, similarity, and difference
    to the most similar picture of another group (`margin`).

    `copy`: whether it is a copy.
    """

    generation: int
    picture: int
    similarity: float
    margin: float
    copy: bool = False


@dataclass(frozen=True)
class Picture:
    """The result for a training picture and its equals.

    `state`: one of STATES. `similarity`: of the most similar generation. `margin`: by how much this
    similarity exceeds that of the generation to any picture of another group; may be negative.
    `level`: the similarity from which a generation is a copy. `ways`: kind of prompt -> (copies,
    generations). `nearest`: its most similar generations.
    """

    state: str
    similarity: float
    margin: float
    level: float
    ways: Mapping[str, tuple[int, int]]
    nearest: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """The result of the copy test on a model, for each generation and each training picture.

    `kinds`: of the generations. `groups`: of the gallery. `controls`: [controls with a similarity
    of at least `COPY`, all]. `proven`: the groups with a copy that is proof by itself: so similar
    that it also exceeds the controls by as much without Fisher's transformation.
    """

    sightings: tuple[Sighting, ...]
    pictures: tuple[Picture, ...]
    kinds: tuple[str, ...]
    groups: tuple[int, ...]
    controls: tuple[int, int] = (0, 0)
    proven: frozenset[int] = frozenset()

    def of(self, state: str) -> list[int]:
        """The groups of pictures in a state; equal pictures count once."""
        pairs = zip(self.groups, self.pictures, strict=True)
        return sorted({group for group, picture in pairs if picture.state == state})

    def rate(self) -> tuple[int, int]:
        """(copies, generations) of the training captions; if none was asked, of trigger words or of
        given prompts.
        """
        return self.among([kind for kind in MAIN if kind in self.kinds][:1])

    def among(self, kinds: Iterable[str]) -> tuple[int, int]:
        """(copies, generations) of some kinds of prompts."""
        asked = set(kinds)
        mine = [s.copy for s, of in zip(self.sightings, self.kinds, strict=True) if of in asked]
        return sum(mine), len(mine)

    @property
    def by_chance(self) -> tuple[int, int]:
        """(copies, pairs of a generation and a group of pictures), of prompts that are not the
        picture's own caption.

        Of a model that never saw the pictures, these copies are what chance gives.
        """
        first = dict(zip(reversed(self.groups), reversed(self.pictures), strict=True))
        ways = [
            counts for one in first.values() for way, counts in one.ways.items() if way != "own"
        ]
        return sum(copies for copies, _ in ways), sum(of for _, of in ways)

    @property
    def has_chance(self) -> bool:
        """Whether a model that never saw the pictures copies any by chance: by prompts that are not
        the picture's own caption, or by its own caption in less than half of the images. In half of
        them and more, it is a memory of that model.
        """
        own = (picture.ways.get("own", (0, 0)) for picture in self.pictures)
        single = any(0 < copies < COPYING * of for copies, of in own)
        return single or self.by_chance[0] > 0

    def taught(self, base: Judgement) -> list[int]:
        """The groups of pictures that this model copies more often than the base explains.

        For each kind of prompt the share of copies is compared with the base's for this kind, or,
        if it has none, with its `by_chance` (Fisher's exact test, one-sided; 5 % over all
        comparisons, by Bonferroni). So a single copy among few generations is no proof, unless it
        is `proven`, a prompt that asks for the picture gave it, and the base copies neither this
        picture nor any by chance (`has_chance`).
        """
        tests = len({*self.groups}) * len(WAYS)
        chance = base.by_chance
        found = set()
        pairs = zip(self.groups, self.pictures, base.pictures, strict=True)
        for k, (group, mine, other) in enumerate(pairs):
            for way, counts in mine.ways.items():
                of_base = other.ways.get(way, (0, 0))
                beside = of_base if of_base[0] else chance
                if counts[0] and is_more(counts, beside, CHANCE / tests):
                    found.add(group)
            is_asked = any(mine.ways.get(way, (0, 0))[0] for way in MAIN)
            if group in self.proven and is_asked and not (base.has_chance or base.copies(k)):
                found.add(group)
        return sorted(found)

    def copies(self, picture: int) -> int:
        """The number of generations that copy a picture, whatever their prompts."""
        return sum(copies for copies, _ in self.pictures[picture].ways.values())

    def causes(self, base: Judgement) -> list[str | None]:
        """Why this model copies each picture: "training" taught it, the "base" does so too, or
        "chance"; None for a picture that it does not copy.
        """
        taught = {*self.taught(base)}
        found: list[str | None] = []
        for k, (group, picture) in enumerate(zip(self.groups, self.pictures, strict=True)):
            if picture.state != "copied":
                found.append(None)
            elif group in taught:
                found.append("training")
            else:
                found.append("base" if base.copies(k) else "chance")
        return found

    def verdict(self, rate: float = RATE, base: Judgement | None = None) -> str:
        """One of VERDICTS.

        A model copies if a larger share of its generations are copies than of the base's (Fisher's
        exact test, 5 %), or if it was `taught` a picture. Without any of these, a model with copies
        is "as the base" if the base copies the same pictures, or if the base has copies by chance
        and no smaller share of them. The result is "cannot be said" for other copies, if a picture
        cannot be distinguished from the controls, or if there was no copy among too few generations
        to say, with 95 % confidence, that fewer than `rate` of them are.
        """
        copied = self.of("copied")
        if not copied:
            told = self.rate()[1] >= images_needed(rate) and not self.of("as a control")
            return "does not copy" if told else "cannot be said"
        if base is None:
            return "copies" if self.proven else "cannot be said"
        if is_more(self.rate(), base.rate()) or self.taught(base):
            return "copies"
        (mine, many), (other, of) = self.among(base.kinds), base.among(base.kinds)
        no_more = base.has_chance and mine * of <= other * many
        return AS_BASE if {*copied} <= {*base.of("copied")} or no_more else "cannot be said"


def is_more(mine: tuple[int, int], base: tuple[int, int], level: float = CHANCE) -> bool:
    """Whether the first share is larger than the second (Fisher's exact test, one-sided, at a
    level).

    >>> is_more((5, 60), (0, 60)), is_more((4, 60), (0, 60))
    (True, False)
    """
    from scipy.stats import fisher_exact

    table = [[copies, of - copies] for copies, of in (mine, base)]
    return base[1] > 0 and float(fisher_exact(table, "greater").pvalue) < level


def images_needed(rate: float = RATE, level: float = 0.95) -> int:
    """Number of generations without a copy that shows, with confidence `level`, that fewer than
    `rate` of all are copies (Clopper and Pearson 1934, one-sided).

    >>> images_needed(0.05), images_needed(0.01)
    (59, 299)
    """
    return math.ceil(math.log(1 - level) / math.log(1 - rate))


def levels(gallery: Gallery, controls: Tensor, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Three values for each group (K,): the similarity from which a generation is a copy, that from
    which it is proof by itself, and the largest similarity of its controls.

    `controls`: vectors (C, D) of images that cannot be copies. Pictures of other groups are
    controls too. `pairs`: number of compared generations and groups. In a share `CHANCE` of all
    tests one of them is called a copy by chance, if controls are distributed as generations that
    are no copies. The level is tanh(mean + z sd) of the atanh of the controls' similarities, at
    least `COPY`. That of proof is mean + z sd of the similarities themselves, and not lower.

    >>> pair = torch.tensor([[[0.6, 0.8]], [[0.8, 0.6]]])
    >>> level, proof, largest = levels(Gallery(pair, (0, 1)), torch.empty(0, 2), 10)
    >>> [round(float(value), 3) for value in (level[0], proof[0], largest[0])]
    [0.961, 0.961, 0.96]
    """
    alike = gallery.of_groups(gallery.similarity(controls))
    every = torch.cat([alike, gallery.siblings()])
    tail = NormalDist().inv_cdf(1 - CHANCE / max(pairs, 1))
    largest = torch.cat([every, torch.full((1, alike.shape[1]), -1.0)]).nan_to_num(-1.0).amax(0)
    level = _far(every.clamp(-BOUND, BOUND).atanh(), tail).tanh()
    level = torch.maximum(level, largest + MORE).clamp(min=COPY)
    return level, torch.maximum(_far(every, tail), level), largest


def _far(values: Tensor, tail: float) -> Tensor:
    """mean + `tail` standard deviations of each column of values (N, K) without NaN; minus infinity
    for fewer than two values.
    """
    known = values.isfinite()
    count = known.sum(0)
    filled = values.nan_to_num(0.0)
    mean = filled.sum(0) / count.clamp(min=1)
    spread = ((filled - mean).square() * known).sum(0) / (count - 1).clamp(min=1)
    return torch.where(count > 1, mean + tail * spread.sqrt(), -torch.inf)


def judge(
    gallery: Gallery,
    captions: Sequence[str | None],
    generations: Sequence[Generation],
    vectors: Tensor,
    controls: Tensor | None = None,
) -> Judgement:
    """Run the copy test on a model's generations, with `vectors` (G, D).

    `captions`: of each picture of the gallery. `controls`: vectors (C, D) of images that cannot be
    copies. A generation counts for its most similar picture, and for the group of that picture.

    >>> gallery = Gallery(torch.eye(3).unsqueeze(1), (0, 1, 2))
    >>> shown = [Generation("a cat", "own", 0), Generation("a dog", "own", 0)]
    >>> found = judge(gallery, ["a cat", "a dog", None], shown, torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8]]))
    >>> [picture.state for picture in found.pictures], found.pictures[2].ways
    (['copied', 'not seen', 'copied'], {'neighbour': (1, 2)})
    """
    from_controls = torch.empty(0, gallery.views.shape[2]) if controls is None else controls
    single = gallery.similarity(vectors)
    alike = gallery.of_groups(single)
    level, proof, largest = levels(gallery, from_controls, alike.numel())
    others = torch.stack([_others(row) for row in alike]) if len(alike) else alike
    nearest = alike > others  # the group that a generation counts for
    copies = nearest & (alike >= level)
    like = {
        "copied": copies.any(0),
        "as a control": (nearest & (alike >= COPY)).any(0),
        "nearly": (nearest & (alike >= (largest + MORE).clamp(min=NEAR))).any(0),
    }
    sightings = tuple(
        Sighting(
            k,
            int(row.argmax()),
            round(float(row.max()), 4),
            round(float((alike[k] - others[k]).max()), 4),
            bool(copies[k].any()),
        )
        for k, row in enumerate(single)
    )
    pictures = []
    for k, group in enumerate(gallery.groups):
        state = next((state for state, holds in like.items() if holds[group]), "not seen")
        order = single[:, k].argsort(descending=True, stable=True)[:3].tolist()
        best = round(float(alike[:, group].max()), 4) if order else -1.0
        margin = float((alike - others)[order[0], group]) if order else 0.0
        ways = _ways(captions[k], generations, copies[:, group].tolist())
        mine = round(float(level[group]), 4)
        pictures.append(Picture(state, best, round(margin, 4), mine, ways, tuple(order)))
    reached = int((gallery.similarity(from_controls) >= COPY).any(1).sum())
    kinds = tuple(one.kind for one in generations)
    controlled = (reached, len(from_controls))
    proven = (copies & (alike >= proof)).any(0).nonzero().flatten().tolist()
    return Judgement(
        sightings, tuple(pictures), kinds, gallery.groups, controlled, frozenset(proven)
    )


def _others(alike: Tensor) -> Tensor:
    """For each group (K,) the largest similarity to another group; -1 if there is none."""
    first, second = torch.cat([alike, torch.tensor([-1.0])]).topk(2).values
    return torch.where(alike == first, second, first)


def _ways(
    caption: str | None, generations: Sequence[Generation], copies: Sequence[bool]
) -> dict[str, tuple[int, int]]:
    """(copies, generations) of each kind of prompt."""
    of: Counter[str] = Counter()
    copied: Counter[str] = Counter()
    for generation, is_copy in zip(generations, copies, strict=True):
        way = generation.kind
        if way == "own" and generation.prompt != caption:
            way = "neighbour"
        of[way] += 1
        copied[way] += is_copy
    return {way: (copied[way], of[way]) for way in WAYS if of[way]}


def share(copies: int, of: int) -> tuple[float, float]:
    """(low, high): the 95 % interval of a share of generations (Clopper and Pearson 1934),
    one-sided if `copies` is 0, as in the verdict.

    >>> [round(end, 3) for end in share(0, 59)]
    [0.0, 0.05]
    """
    if not of:
        return 0.0, 1.0
    return clopper_pearson(copies, of) if copies else (0.0, 1 - 0.05 ** (1 / of))
