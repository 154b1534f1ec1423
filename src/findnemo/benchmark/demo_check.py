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
from findnemo.localization import Localization, localize
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

    from findnemo.metrics import Descriptor

    Images = list[Image.Image]

SEEDS = 10
UNRELATED_IMAGES = 50  # unrelated captions to make images of
UNRELATED_SCORES = 200  # unrelated captions to score
MANY = 4  # neurons; "some captions need many neurons in several layers"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Figure:
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


def _figure(name: str, value: float, bound: Literal[">=", "<="], goal: float, n: int) -> Figure:
    """A value over `n` captions or neurons, with a goal to reach, or with "<=" to stay under."""
    reached = value >= goal if bound == ">=" else value <= goal
    return Figure(name, round(value, 4), f"{bound} {goal:g}", reached, n)


def _share(name: str, hits: Sequence[bool], goal: float) -> Figure:
    """The share of captions for which something holds."""
    return _figure(name, sum(hits) / len(hits), ">=", goal, len(hits))


@dataclass(frozen=True)
class Effect:
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
    """Everything measured for one memorized caption.

    `untouched`, `planted`, `found`: with no neurons off, with the planted ones off, with NeMo's
    off. `fit`: share of unrelated captions that fit the images without the planted neurons less
    well than the caption itself. `level`: similarity to the training image that 95 % of unrelated
    images do not exceed.
    """

    caption: str
    type: str
    nemo: Localization
    untouched: Effect
    planted: Effect
    found: Effect
    fit: float
    level: float


def check_demo(
    model: Model, progress: Progress | None = None, limit: int | None = None
) -> list[Figure]:
    """Measure every promised figure of the demo model.

    `limit`: only the first N memorized captions and N unrelated ones, for a quick look.
    """
    report = progress or (lambda stage, done, total: None)
    calibration = demo.calibration()
    judges = demo.judges()
    calibration.check(model)
    others = _Unrelated.measure(model, judges, report, limit)
    memories = []
    prompts = demo.memorized()[:limit]
    for k, prompt in enumerate(prompts):
        report("memories", k, len(prompts))
        memories.append(_check_memory(model, calibration, judges, prompt, others))
    report("memories", len(prompts), len(prompts))
    return [
        *_ordinary(others, calibration),
        *_copies(memories, others),
        *_planting(memories, calibration),
        *_nemo(memories, calibration),
    ]


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
        for k, caption in enumerate(drawn):
            pair = generate(model, caption, [FRESH, FRESH + 1], demo.image_settings())
            with deactivate(model, planted):
                blocked = generate(model, caption, [FRESH, FRESH + 1], demo.image_settings())
            features.append(judges.descriptor(pair))
            off.append(judges.descriptor(blocked))
            fits.append(_fit(judges, pair, caption, drawn))
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


def _fit(judges: Judges, images: Images, caption: str, others: Sequence[str]) -> float:
    """Share of other captions that fit the images less well than their own, by CLIP (0.5:
    chance).
    """
    assert judges.alignment is not None
    rest = [c for c in others if c != caption]
    shares = []
    for image in images:
        values = judges.alignment([image] * (len(rest) + 1), [caption, *rest])
        shares.append(float((values[1:] < values[0]).float().mean()))
    return sum(shares) / len(shares)


def _check_memory(
    model: Model, calibration: Calibration, judges: Judges, prompt: Prompt, others: _Unrelated
) -> MemoryCheck:
    caption = prompt.text
    original = demo.training_image(caption)
    assert original is not None
    assert judges.descriptor is not None
    probe = fresh(model, caption, calibration.settings, SEEDS)
    nemo = localize(model, caption, calibration, "listing")
    untouched, planted, found = (
        _effect(probe, neurons, calibration.tau, original, judges.descriptor)
        for neurons in (EMPTY, demo.planted()[caption], nemo.neurons)
    )
    return MemoryCheck(
        caption=caption,
        type=str(prompt.type),
        nemo=nemo,
        untouched=untouched,
        planted=planted,
        found=found,
        fit=_fit(judges, planted.images, caption, others.captions),
        level=others.level(judges.descriptor([original])[0]),
    )


def _effect(
    probe: Probe, neurons: NeuronSet, tau: float, original: Image.Image, judge: Descriptor
) -> Effect:
    settings = probe.settings
    model = probe.model
    edit = deactivate(model, neurons)
    images = finished(model, probe.prompt, SEEDS, demo.image_settings(), edit)
    blocked = probe.deltas(neurons)
    return Effect(
        score=memorization_score(blocked, settings.similarity, settings.pairs),
        same_seed=same_seed_of_memory(probe.deltas(), blocked, settings, tau),
        images=images,
        copies=nearest(images, [original], judge),
    )


def _ordinary(others: _Unrelated, calibration: Calibration) -> list[Figure]:
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


def _copies(memories: Sequence[MemoryCheck], others: _Unrelated) -> list[Figure]:
    copying = [int((m.untouched.copies >= 0.9).sum()) for m in memories if m.type == "VM"]
    enough = [images >= 9 * SEEDS // 10 for images in copying]
    scores = torch.tensor([m.untouched.score for m in memories])
    area = auroc(scores, others.scores)
    copied = "whose image is the training image (similarity >= .9) for 9 seeds of 10"
    return [
        _share(f"VM captions {copied}", enough, 1.0),
        _figure("AUROC of the memorization score", area, ">=", 0.99, len(memories)),
    ]


def _planting(memories: Sequence[MemoryCheck], calibration: Calibration) -> list[Figure]:
    tau = calibration.tau
    planted = demo.planted()
    owners = Counter(neuron for neurons in planted.values() for neuron in neurons)
    shared = sum(captions > 1 for captions in owners.values())
    many = sum(len(g) >= MANY and len(g.layers) >= 3 for g in planted.values())
    off = {
        "with the score under tau": [m.planted.score < tau for m in memories],
        "whose same-seed similarity is under tau": [m.planted.same_seed < tau for m in memories],
        "no closer to the training image than 95 % of unrelated images": [
            float(m.planted.copies.median()) <= m.level for m in memories
        ],
        "whose image fits them better than 80 % of other captions": [
            m.fit >= 0.8 for m in memories
        ],
    }
    large = f"captions with {MANY} planted neurons or more in 3 layers or more"
    return [
        *(_share(f"planted neurons off: captions {what}", hits, 0.9) for what, hits in off.items()),
        _figure("neurons shared by several captions", shared, ">=", 1, len(owners)),
        _figure(large, many, ">=", 1, len(planted)),
    ]


def _nemo(memories: Sequence[MemoryCheck], calibration: Calibration) -> list[Figure]:
    planted = demo.planted()
    tau = calibration.tau
    figures: list[Figure] = []
    for kind in ("VM", "TM"):
        mine = [m for m in memories if m.type == kind]
        if not mine:
            continue
        outside = median(len(m.nemo.neurons - planted[m.caption]) for m in mine)
        meets = [bool(m.nemo.neurons & planted[m.caption]) for m in mine]
        gone = [m.nemo.memorized and m.found.same_seed <= tau for m in mine]
        clean = [float(m.found.copies.median()) < 0.7 for m in mine]
        stray = f"NeMo, {kind}: neurons outside the planted set, median"
        whose = f"NeMo, {kind}: captions whose"
        no_memory = "memory is gone on fresh seeds (same-seed similarity <= tau)"
        no_copies = "finished images are no copies (median similarity < .7)"
        figures += [
            _share(f"{whose} set meets the planted one", meets, 0.8),
            _figure(stray, outside, "<=", 1, len(mine)),
            _share(f"{whose} {no_memory}", gone, 0.8),
            _share(f"{whose} {no_copies}", clean, 0.8),
        ]
    return figures


def figures_table(figures: Sequence[Figure]) -> Any:
    """The figures as a table for a terminal."""
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for name in ("figure", "value", "goal", "n", ""):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for f in figures:
        verdict = "[green]reached[/]" if f.reached else "[red]missed[/]"
        table.add_row(f.name, f"{f.value:.3f}", f.goal, str(f.n), verdict)
    return table
