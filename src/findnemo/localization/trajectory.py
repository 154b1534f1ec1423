"""The search to the end: a set with which the finished picture, and not one noisy
step, is no copy any more.

One noise difference says little of the picture: guidance makes a copy over many steps, out of a
trace that a threshold lets through. So the question is put to denoised pictures. Three or
four steps of DPM-Solver++ 2M, taken among those of the whole trajectory, show what it will show. A thorough
search takes a few large DDIM steps, which show that of most memories, and looks at the whole
trajectory before a set is called done. Where it disagrees, it takes the place of the few steps, and
the search goes on with that.

Neurons are ranked by the gradient of a picture's likeness to the copy, taken along the trajectory
that the model takes with what was switched off so far. It is taken anew after every block of
neurons, for a memory that two layers hold shows its second hold only once the first is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from torch import Tensor

from findnemo.edits import masks
from findnemo.images import ImageSettings
from findnemo.localization.search import descending
from findnemo.models import Model
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.passes import Denoising, Path, likeness, quick_steps, side_by_side, unpaid
from findnemo.passes.denoising import GENTLE
from findnemo.passes.gradients import frozen

COPIES = 4  # untouched samples, and those that a set is tried on first
FEW = 8  # samples that a set is tried on in few steps; the others only if those are not clear
CLEAR = 0.25  # likeness below which four samples in quick steps are enough
# of a thorough search
WHOLE = 4  # samples that it is tried on in all steps
SHARE = 5  # few steps are a fifth of those that images are made with, at least
LEAST = 3
SAME = 0.6  # likeness to another seed's picture from which on there may be a copy to remove
GONE = 0.4  # likeness below which no copy is left
# of the neurons that are on, where gradients are taken: at 1 redundant ones hide each other
MASK = 0.8
GRADIENTS = 2  # samples of which gradients are taken; one where guidance is gentle
GIVING = 2  # samples that give copies, where the originals are known
WITNESSES = 3
LARGE = 8  # neurons from which on the last block is halved
MANY = 32  # samples among which copies of known pictures are sought
PATIENCE = 1.5  # how far the next block may reach, in shares of the way that is left
# powers of the price that gradients are divided by, one after the other where a set changes too
# much
GENTLER = (0.3, 0.5, 0.7, 1.0)
# a set is at most one in so many of the value neurons: what takes more is no memory, but the model
MOST = 4
FLOOR = 1e-3  # of the dearest layer's mean price
PRICED = 8  # captions that neurons are priced by

Values = Mapping[str, Tensor]  # layer -> (width,)


@dataclass(frozen=True)
class TrajectorySearch:
    """How to search until pictures are no longer copies.

    `images`: steps and guidance of the pictures, by default the model's usual ones. `scope`: "all"
    value neurons, or those of the layers that the "paper" names. The search makes pictures in three
    or four quick steps, which stand for all steps. If `thorough`, it uses a few steps of DDIM, and
    checks the whole trajectory before it accepts a set.
    """

    images: ImageSettings | None = None
    scope: str = "all"
    thorough: bool = False


@dataclass
class Copies:
    """A caption's copies, and how like them its pictures stay with neurons off.

    `originals`: latents (P, C, H, W) of the pictures that are copied, where they are known; what an
    untouched sample makes of them (`copied`: sample -> picture) is held against other samples too.
    Without, a copy shows in that pictures of different seeds are alike. `alike`: the largest likeness of an
    untouched picture to an original, or to that of another seed. `thorough`: few steps are steps of
    DDIM, and a set is confirmed in all steps; else they are quick ones (`quick_steps`), which are
    believed, unless untouched pictures are neither alike nor unlike in them. `samples`: numbers of the untouched
    ones; `likest`: the same, those most alike first. `witnesses`: the samples that are asked first, those that failed last before the others;
    `steps`: how many steps they are denoised in. `tried`: (neurons, likeness) of every set that the
    witnesses were asked about.

    Of a copy that came back: `off`, the neurons that are off already, beside those of every set
    that is asked about; `failed`, the samples that gave it, which are the first witnesses.
    """

    denoising: Denoising
    few: int
    whole: int
    originals: Tensor | None = None
    thorough: bool = True
    off: NeuronSet = EMPTY
    failed: tuple[int, ...] = ()
    samples: list[int] = field(init=False)
    likest: list[int] = field(init=False)
    witnesses: list[int] = field(init=False)
    copied: dict[int, Tensor] = field(init=False, default_factory=dict)
    tried: list[tuple[int, float]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        denoising: Denoising,
        steps: int,
        originals: Tensor | None = None,
        thorough: bool = True,
        off: NeuronSet = EMPTY,
        failed: Sequence[int] = (),
    ) -> Copies:
        """As few steps as stand for `steps`: `quick_steps`, or a fifth of them if `thorough`."""
        quick = quick_steps(denoising.guidance or 0.0)
        whole = thorough or steps <= quick
        few = few_steps(steps) if whole else quick
        return cls(denoising, few, steps, originals, whole, off, tuple(failed))

    def __post_init__(self) -> None:
        # a memory that few steps do not show may take shape late
        for steps in (self.few, self.whole):
            self.steps = steps
            self.samples, self.untouched = self._untouched(steps)
            alike = self.resemblance(self.untouched.image, self.samples)
            self.alike = float(alike.max())
            if self.has_copies or (self.alike < GONE and not self.thorough):
                break
        order = alike.argsort(descending=True, stable=True).tolist()
        self.likest = [self.samples[row] for row in order]
        self.witnesses = [*self.failed[:WITNESSES]] or self.likest[: self.graded]
        if self.originals is not None:
            rows = zip(self.samples, self.untouched.image, alike, strict=True)
            self.copied = {k: picture for k, picture, likeness_ in rows if likeness_ >= SAME}

    def _untouched(self, steps: int) -> tuple[list[int], Path]:
        """Samples with nothing off. Where the originals are known, seeds are tried until two give
        copies: not every seed need give one.
        """
        if self.originals is None:
            samples = list(range(COPIES))
            return samples, self.denoised(samples, steps)
        paths: list[Path] = []
        alike = torch.empty(0)
        while len(alike) < MANY and int((alike >= SAME).sum()) < GIVING:
            block = range(len(alike), len(alike) + COPIES)
            paths.append(self.denoised(block, steps))
            alike = torch.cat([alike, self.resemblance(paths[-1].image, block)])
        best = alike.argsort(descending=True, stable=True)[:COPIES].tolist()
        return best, _rows(paths, best)

    @property
    def quick(self) -> bool:
        """Whether pictures are made in few steps that stand for all."""
        return not self.thorough and self.steps != self.whole

    @property
    def graded(self) -> int:
        """Of how many samples gradients are taken. Under strong guidance, sets that were found by
        one leave more in pictures of others.
        """
        gentle = (self.denoising.guidance or 0.0) <= GENTLE
        return 1 if gentle and not self.thorough else GRADIENTS

    @property
    def has_copies(self) -> bool:
        """Whether untouched pictures of different seeds are alike, so that
        there is something to remove.
        """
        return self.alike >= SAME

    def targets(self, samples: Sequence[int], pictures: Tensor) -> Tensor:
        """For each sample what its picture (n, C, H, W) shall not be like: the original that it is
        most like, or the mean of the other seeds' untouched pictures, (n, C, H, W).
        """
        if self.originals is not None:
            return self.originals[likeness(pictures, self.originals).argmax(1)]
        untouched = self.untouched.image
        total = untouched.sum(0)
        return torch.stack(
            [
                (total - untouched[k]) / (COPIES - 1) if k < COPIES else total / COPIES
                for k in samples
            ]
        )

    def path_without(
        self, neurons: NeuronSet, samples: Sequence[int], steps: int
    ) -> tuple[Path, Tensor]:
        """The paths of samples with `neurons` off, and the resemblance of each picture, (n,)."""
        path = self.denoised(samples, steps, masks(self.denoising.model, [neurons | self.off]))
        return path, self.resemblance(path.image, samples)

    def denoised(
        self, samples: Sequence[int], steps: int, scales: Mapping[str, Tensor] | None = None
    ) -> Path:
        """The paths of samples; those of few steps as the search was told to make them."""
        stands_for = None if self.thorough or steps == self.whole else self.whole
        return self.denoising.run(samples, steps, scales, stands_for)

    def resemblance(self, pictures: Tensor, samples: Sequence[int]) -> Tensor:
        """How like each picture (n, C, H, W) is to the most similar original, or to the most
        similar untouched one of another seed, (n,).
        """
        if self.originals is not None:
            near = likeness(pictures, self.originals).amax(1).cpu()
            for k, picture in self.copied.items():
                alike = likeness(pictures, picture[None])[:, 0].cpu()
                alike[[row for row, sample in enumerate(samples) if sample == k]] = -1
                near = near.maximum(alike)
            return near
        alike = likeness(pictures, self.untouched.image)
        for row, k in enumerate(samples):
            if k < COPIES:
                alike[row, k] = -1
        return alike.amax(1).cpu()

    def gone(self, neurons: NeuronSet) -> Path | None:
        """None if no sample gives a copy with `neurons` off; else the path of the witnesses, the
        sample that failed now among them.
        """
        path, alike = self.path_without(neurons, self.witnesses, self.steps)
        self.tried.append((len(neurons), round(float(alike.max()), 4)))
        if alike.max() >= GONE:
            return path
        copying = [] if self.originals is None else self.samples
        most = float(alike.max())
        for steps, samples, level in self._confirming():
            if steps < self.steps:
                continue  # what few steps say was overruled before
            if not self.thorough and samples.start:
                copying = []  # asked before
                if most < CLEAR:
                    break
            asked = dict.fromkeys([*copying, *samples])
            others = [k for k in asked if steps != self.steps or k not in self.witnesses]
            for start in range(0, len(others), COPIES):
                part = others[start : start + COPIES]
                _, alike = self.path_without(neurons, part, steps)
                most = max(most, float(alike.max()))
                if alike.max() >= level:
                    worst = part[int(alike.argmax())]
                    self.witnesses = [worst, *(k for k in self.witnesses if k != worst)][:WITNESSES]
                    self.steps = steps
                    path, alike = self.path_without(neurons, self.witnesses, steps)
                    self.tried[-1] = (len(neurons), round(float(alike.max()), 4))
                    return path
        return None

    def _confirming(self) -> list[tuple[int, range, float]]:
        """Steps and samples with which a set is confirmed that the witnesses found nothing
        against, and the likeness from which on one speaks against it.
        """
        if self.thorough:
            samples = range(COPIES, COPIES + WHOLE)
            return [(self.few, range(FEW), GONE), (self.whole, samples, GONE)]
        return [(self.steps, range(COPIES), GONE), (self.steps, range(COPIES, FEW), SAME)]

    def gradient(
        self, neurons: NeuronSet, path: Path, widths: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """How much each neuron that is still on keeps the copy alive:

        `slopes` with `neurons` off, layer -> (width,).
        """
        levels = {
            name: torch.full((1, width), MASK, device=self.denoising.model.device)
            for name, width in widths.items()
        }
        for name, indices in (neurons | self.off).layers.items():
            levels[name][0, list(indices)] = 0
        return self.slopes(levels, path)

    def slopes(self, levels: Values, path: Path) -> dict[str, Tensor]:
        """Gradient of the likeness with respect to masks (layer -> (1, width)) along a path that
        the witnesses are first on: layer -> (width,).

        Summed over the steps in which a copy takes shape (`gradient_steps`).
        """
        samples = self.witnesses[: self.graded]
        targets = self.targets(samples, path.image[: len(samples)])

        def value(image: Tensor, rows: slice) -> Tensor:
            return likeness(image, targets[rows]).diagonal()

        total = {name: torch.zeros(level.shape[1]) for name, level in levels.items()}
        with frozen(self.denoising.model.denoiser):
            for k in gradient_steps(len(path.timesteps), self.quick):
                found = self.denoising.gradients(
                    path.latents[k][: len(samples)], path.timesteps[k], levels, value
                )
                total = {name: total[name] + found[name] for name in total}
        return total

    @property
    def untouched_path(self) -> Path:
        """What the witnesses went through with nothing off."""
        return _rows([self.untouched], [self.samples.index(k) for k in self.witnesses])


def _rows(paths: Sequence[Path], rows: Sequence[int]) -> Path:
    """Some rows of paths that follow each other."""
    latents = (torch.cat(states)[rows] for states in zip(*(p.latents for p in paths), strict=True))
    image = torch.cat([path.image for path in paths])
    return Path(tuple(latents), paths[0].timesteps, image[rows])


def gradient_steps(steps: int, quick: bool = False) -> list[int]:
    """Steps at which gradients are taken: the first two of few, four of the first half of many;
    the first and the last of `quick` ones, which stand for all.

    >>> gradient_steps(3), gradient_steps(15), gradient_steps(3, quick=True)
    ([0, 1], [0, 2, 4, 7], [0, 2])
    """
    if quick:
        return sorted({0, steps - 1})
    return [0, 1] if steps < 8 else sorted({0, steps // 7, steps * 2 // 7, steps // 2})


@dataclass(frozen=True)
class Trail:
    """A search, step by step: neurons in the `order` in which they went off; (neurons, likeness
    left) of every prefix that was `tried`; whether the last one, `neurons`, leaves no copy.
    """

    order: tuple[Neuron, ...]
    tried: tuple[tuple[int, float], ...]
    gone: bool

    @property
    def neurons(self) -> NeuronSet:
        return NeuronSet.of(self.order)


def by_trajectory(
    copies: Copies,
    widths: Mapping[str, int],
    price: Callable[[], Values],
    guess: Sequence[Neuron] = (),
    gentle: float = GENTLER[0],
) -> Trail:
    """Neurons with which no sample gives a copy, if there are such: a prefix of a ranking that is
    made anew after every block.

    `widths`: value layers in which they may be. Where some are `off` already, the search goes on
    with what the witnesses give then. `price` gives what each neuron is to other captions
    (`prices`); it is asked where the guess is not enough, and gradients are divided by it to the
    power `gentle`. `guess`: what is tried first. No prefix that was tried before the last one was
    enough. By quick steps the last block is cut to what is needed, by bisection.
    """
    order = list(guess)
    most = max(1, sum(widths.values()) // MOST)
    began = len(copies.tried)
    asked = bool(order or copies.off)
    path = copies.gone(NeuronSet.of(order)) if asked else copies.untouched_path
    short = 0
    while path is not None and len(order) < most:
        short = len(order)
        off = NeuronSet.of(order)
        ranking = descending(per_price(copies.gradient(off, path, widths), price(), gentle))
        size = _block(len(order), copies.tried[-1][1] if copies.tried else 1.0)
        off |= copies.off
        order += [n for n in ranking if n not in off][: min(size, most - len(order))]
        path = copies.gone(NeuronSet.of(order))
    while path is None and copies.quick and len(order) - short >= LARGE:
        half = (short + len(order)) // 2
        if copies.gone(NeuronSet.of(order[:half])) is None:
            del order[half:]
        else:
            short = half
    tried = sorted(point for point in copies.tried[began:] if point[0] <= len(order))
    return Trail(tuple(order), tuple(tried), path is None)


def _block(count: int, alike: float) -> int:
    """How many neurons join those that are off: as many again while nothing has happened,
    fewer the nearer the end.

    >>> _block(0, 1.0), _block(16, 0.95), _block(16, 0.6), _block(16, 0.46)
    (1, 16, 8, 4)
    """
    return max(1, round(count * min(1.0, max(0.25, PATIENCE * (alike - GONE) / (1 - GONE)))))


def per_price(gradient: Values, price: Values, gentle: float) -> dict[str, Tensor]:
    """Gradients divided by prices to a power; layer -> (width,).

    A neuron that costs nothing costs as much as a thousandth of the dearest layer.

    >>> per_price({"a": torch.tensor([2.0, 2.0])}, {"a": torch.tensor([4.0, 1.0])}, 0.5)["a"].round(decimals=2).tolist()
    [1.0, 2.0]
    """
    least = FLOOR * max(float(values.mean()) for values in price.values())
    return {name: values / (price[name] + least) ** gentle for name, values in gradient.items()}


def prices(
    model: Model,
    captions: Sequence[str],
    widths: Mapping[str, int],
    steps: int,
    guidance: float,
    whole: int | None = None,
) -> dict[str, Tensor]:
    """What each value neuron is to captions that are not memorized: layer -> (width,), the mean
    squared change of a guided prediction a unit of the neuron's mask, by gradients of a random
    projection in each of the steps in which a picture takes shape.

    Of the first 8 captions. Nothing is dear where none are known. It costs 18 to 20 evaluations a
    caption, once: what was measured on a model is kept as long as the model is what it was.
    """
    if not captions:
        return {name: torch.ones(width) for name, width in widths.items()}
    return _prices(
        model,
        model.fingerprint,
        tuple(captions[:PRICED]),
        tuple(widths.items()),
        steps,
        guidance,
        whole,
    )


@lru_cache(maxsize=4)
def _prices(
    model: Model,
    fingerprint: str,
    captions: tuple[str, ...],
    widths: tuple[tuple[str, int], ...],
    steps: int,
    guidance: float,
    whole: int | None,
) -> dict[str, Tensor]:
    ones = {name: torch.ones(1, width, device=model.device) for name, width in widths}

    def price(number: int, caption: str) -> Tensor:
        """Of one caption, (layers' widths,)."""
        generator = torch.Generator().manual_seed(number)
        denoising = Denoising(model, caption, 1, guidance)
        path = denoising.run([0], steps, whole=whole)
        total = torch.zeros(sum(width for _, width in widths))
        for k in gradient_steps(steps, whole is not None):
            direction = torch.randn(path.image.shape, generator=generator).to(path.image)
            found = denoising.gradients(path.latents[k], path.timesteps[k], ones, _along(direction))
            total += torch.cat(list(found.values())).square()
        return total

    with unpaid():
        each = side_by_side(model, [partial(price, *one) for one in enumerate(captions)])
    mean = torch.stack(each).mean(0)
    return dict(zip(ones, mean.split([width for _, width in widths]), strict=True))


def _along(direction: Tensor) -> Callable[[Tensor, slice], Tensor]:
    return lambda image, rows: (image * direction).sum((1, 2, 3))


def few_steps(steps: int) -> int:
    """How many steps stand for `steps`.

    >>> few_steps(15), few_steps(50), few_steps(1)
    (3, 10, 1)
    """
    return min(steps, max(LEAST, steps // SHARE))
