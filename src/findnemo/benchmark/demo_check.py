"""Measure the demo model against its ground truth: `findnemo demo --check`.

All seeds are fresh (sample numbers from 1000; training used other generators), and all unrelated
captions are unseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from findnemo import demo
from findnemo.calibration import Calibration
from findnemo.edits import deactivate
from findnemo.images import generate
from findnemo.localization import localize
from findnemo.metrics import Judges
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Probe, score
from findnemo.prompts import Prompt
from findnemo.scores import memorization_score
from findnemo.seeds import FRESH
from findnemo.stats import auroc
from findnemo.verification import finished, fresh, nearest, same_seed_of_memory

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Alignment, Descriptor

    Images = list[Image.Image]

SEEDS = 10
UNRELATED_IMAGES = 50  # unrelated captions to make images of
UNRELATED_SCORES = 200  # unrelated captions to score
MANY = 4  # neurons; "some captions need many neurons in several layers"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CheckFigure:
    """One measured figure: its name, its value, its sample size, and the goal set before
    training.
    """

    name: str
    value: float
    goal: str
    reached: bool
    n: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _figure(
    name: str, value: float, bound: Literal[">=", "<="], goal: float, n: int
) -> CheckFigure:
    """A value over `n` captions or neurons, with a goal to reach, or with "<=" to stay under."""
    reached = value >= goal if bound == ">=" else value <= goal
    return CheckFigure(name, round(value, 4), f"{bound} {goal:g}", reached, n)


def _share(name: str, hits: Sequence[bool], goal: float) -> CheckFigure:
    """The share of captions for which something holds."""
    return _figure(name, sum(hits) / len(hits), ">=", goal, len(hits))


@dataclass(frozen=True)
class MemoryEffect:
    """A memorized caption on fresh seeds, with some neurons off or none.

    `score`: memorization score. `same_seed`: largest similarity of a replicating seed's noise
    difference to its own with all neurons on. `copies`: descriptor similarity of each finished
    image to the training image, (N,).
    """

    score: float
    same_seed: float
    images: Images
    copies: Tensor


@dataclass(frozen=True)
class MemoryCheck:
    """What was measured for one memorized caption.

    `score`: its memorization score. `copied`: whether its image is the training image for 9 seeds
    of 10. `off`: criterion -> whether it holds with the planted neurons off. `nemo`: criterion ->
    whether it holds for NeMo's neurons. `stray`: number of these outside the planted set.
    """

    type: str
    score: float
    copied: bool
    off: dict[str, bool]
    nemo: dict[str, bool]
    stray: int


def check_demo(
    model: Model, progress: Progress | None = None, limit: int | None = None
) -> list[CheckFigure]:
    """Measure every promised figure of the demo model.

    `limit`: only the first N memorized captions and N unrelated ones, for a quick look.
    """
    report = progress or (lambda stage, done, total: None)
    calibration = demo.calibration()
    calibration.check(model)
    judges = demo.judges()
    others = _Unrelated.measure(model, judges, report, limit)
    memories = []
    prompts = demo.memorized()[:limit]
    for k, prompt in enumerate(prompts):
        report("memories", k, len(prompts))
        memories.append(_check_memory(model, calibration, judges, prompt, others))
    report("memories", len(prompts), len(prompts))
    return [*_ordinary(others, calibration), *_of_memories(memories, others), *_nemo(memories)]


@dataclass(frozen=True)
class _Unrelated:
    """Captions that are not memorized, with their scores, their images, and images with all planted
    neurons off.
    """

    captions: Sequence[str]
    scores: Tensor
    features: Tensor  # (captions, 2, D) descriptors
    features_off: Tensor  # (captions, 2, D) with all planted neurons off
    own_fit: Tensor  # per caption, share of the others that fit its image less well

    @classmethod
    def measure(
        cls, model: Model, judges: Judges, report: Progress, limit: int | None
    ) -> _Unrelated:
        captions = demo.unrelated()[:limit]
        scored = captions[:UNRELATED_SCORES]
        scores = []
        for k, caption in enumerate(scored):
            scores.append(score(model, caption, samples=range(FRESH, FRESH + SEEDS)))
            report("unrelated", k + 1, len(scored))
        drawn = captions[:UNRELATED_IMAGES]
        planted = NeuronSet.of(n for g in demo.planted().values() for n in g)
        features = []
        off = []
        fits = []
        assert judges.descriptor is not None
        assert judges.alignment is not None
        for k, caption in enumerate(drawn):
            pair = generate(model, caption, [FRESH, FRESH + 1], demo.image_settings())
            with deactivate(model, planted):
                blocked = generate(model, caption, [FRESH, FRESH + 1], demo.image_settings())
            features.append(judges.descriptor(pair))
            off.append(judges.descriptor(blocked))
            fits.append(fits_better_than(judges.alignment, pair, caption, _compared()))
            report("images", k + 1, len(drawn))
        return cls(
            captions=drawn,
            scores=torch.tensor(scores),
            features=torch.stack(features),
            features_off=torch.stack(off),
            own_fit=torch.tensor(fits),
        )

    def level(self, target: Tensor) -> float:
        """Similarity to a descriptor (D,) that 95 % of unrelated images do not exceed."""
        return float(torch.quantile((self.features.flatten(0, 1) @ target).double(), 0.95))


def fits_better_than(
    alignment: Alignment, images: Images, caption: str, others: Sequence[str]
) -> float:
    """Share of other captions that fit the images less well than their own, by CLIP (0.5:
    chance); mean over the images.

    `alignment`: gives the cosine of each image with its caption, (N,). `others`: captions, at least
    one of them another.
    """
    rest = [c for c in others if c != caption]
    shares = []
    for image in images:
        values = alignment([image] * (len(rest) + 1), [caption, *rest])
        shares.append(float((values[1:] < values[0]).float().mean()))
    return sum(shares) / len(shares)


def _compared() -> tuple[str, ...]:
    """Captions that an image is not of. They do not depend on the limit: it may be 1."""
    return demo.unrelated()[:UNRELATED_IMAGES]


def _check_memory(
    model: Model, calibration: Calibration, judges: Judges, prompt: Prompt, others: _Unrelated
) -> MemoryCheck:
    caption = prompt.text
    truth = demo.planted()[caption]
    tau = calibration.tau
    original = demo.training_image(caption)
    assert original is not None
    assert judges.descriptor is not None
    assert judges.alignment is not None
    probe = fresh(model, caption, calibration.settings, SEEDS)
    nemo = localize(model, caption, calibration, "listing")
    untouched, planted, found = (
        _effect(probe, neurons, tau, original, judges.descriptor)
        for neurons in (EMPTY, truth, nemo.neurons)
    )
    level = others.level(judges.descriptor([original])[0])
    fit = fits_better_than(judges.alignment, planted.images, caption, _compared())
    gone = nemo.memorized and found.same_seed <= tau
    return MemoryCheck(
        type=str(prompt.type),
        score=untouched.score,
        copied=int((untouched.copies >= 0.9).sum()) >= 9 * SEEDS // 10,
        off={
            "with the score under tau": planted.score < tau,
            "whose same-seed similarity is under tau": planted.same_seed < tau,
            "no closer to the training image than 95 % of unrelated images": (
                float(planted.copies.median()) <= level
            ),
            "whose image fits them better than 80 % of other captions": fit >= 0.8,
        },
        nemo={
            "set meets the planted one": bool(nemo.neurons & truth),
            "memory is gone on fresh seeds (same-seed similarity <= tau)": gone,
            "finished images are no copies (median similarity < .7)": (
                float(found.copies.median()) < 0.7
            ),
        },
        stray=len(nemo.neurons - truth),
    )


def _effect(
    probe: Probe, neurons: NeuronSet, tau: float, original: Image.Image, judge: Descriptor
) -> MemoryEffect:
    settings = probe.settings
    model = probe.model
    edit = deactivate(model, neurons)
    images = finished(model, probe.prompt, SEEDS, demo.image_settings(), edit)
    blocked = probe.deltas(neurons)
    return MemoryEffect(
        score=memorization_score(blocked, settings.similarity, settings.pairs),
        same_seed=same_seed_of_memory(probe.deltas(), blocked, settings, tau),
        images=images,
        copies=nearest(images, [original], judge),
    )


def _ordinary(others: _Unrelated, calibration: Calibration) -> list[CheckFigure]:
    n = len(others.captions)
    fit = float(others.own_fit.mean())
    seeds = (others.features[:, 0] * others.features[:, 1]).sum(-1)
    kept = (others.features * others.features_off).sum(-1)
    over = calibration.settings.reaches(others.scores, calibration.tau).float()
    better = "own caption fits the image better than this share of other captions"
    between = "descriptor similarity between two seeds, median"
    high = "share over tau (mean + 1 std)"
    off = "descriptor similarity with all planted neurons off, median"
    return [
        _figure(f"unrelated: {better}", fit, ">=", 0.9, n),
        _figure(f"unrelated: {between}", float(seeds.median()), "<=", 0.5, n),
        _figure(f"unrelated: {high}", float(over.mean()), "<=", 0.2, len(over)),
        _figure(f"unrelated: {off}", float(kept.median()), ">=", 0.9, n),
    ]


def _of_memories(memories: Sequence[MemoryCheck], others: _Unrelated) -> list[CheckFigure]:
    planted = demo.planted()
    owners = Counter(neuron for neurons in planted.values() for neuron in neurons)
    shared = sum(captions > 1 for captions in owners.values())
    many = sum(len(g) >= MANY and len(g.layers) >= 3 for g in planted.values())
    area = auroc(torch.tensor([m.score for m in memories]), others.scores)
    copied = "whose image is the training image (similarity >= .9) for 9 seeds of 10"
    large = f"captions with {MANY} planted neurons or more in 3 layers or more"
    return [
        _share(f"VM captions {copied}", [m.copied for m in memories if m.type == "VM"], 1.0),
        _figure("AUROC of the memorization score", area, ">=", 0.99, len(memories)),
        *(
            _share(f"planted neurons off: captions {what}", [m.off[what] for m in memories], 0.9)
            for what in memories[0].off
        ),
        _figure("neurons shared by several captions", shared, ">=", 1, len(owners)),
        _figure(large, many, ">=", 1, len(planted)),
    ]


def _nemo(memories: Sequence[MemoryCheck]) -> list[CheckFigure]:
    figures: list[CheckFigure] = []
    for kind in ("VM", "TM"):
        mine = [m for m in memories if m.type == kind]
        if mine:
            meets, *rest = (
                _share(f"NeMo, {kind}: captions whose {what}", [m.nemo[what] for m in mine], 0.8)
                for what in mine[0].nemo
            )
            name = f"NeMo, {kind}: neurons outside the planted set, median"
            stray = _figure(name, median(m.stray for m in mine), "<=", 1, len(mine))
            figures += [meets, stray, *rest]
    return figures


def figures_table(figures: Sequence[CheckFigure]) -> Any:
    """The figures as a table for a terminal."""
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for name in ("figure", "value", "goal", "n", ""):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for f in figures:
        verdict = "[green]reached[/]" if f.reached else "[red]missed[/]"
        table.add_row(f.name, f"{f.value:.3f}", f.goal, str(f.n), verdict)
    return table
