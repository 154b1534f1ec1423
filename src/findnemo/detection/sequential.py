"""Detection: which captions are memorized, by the memorization score against tau (Finding NeMo, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from findnemo.calibration import Calibration
from findnemo.errors import InputError, NumericalError
from findnemo.models import Model, captions_in
from findnemo.passes.deltas import Probe
from findnemo.scores import fault, memorization_score
from findnemo.settings import Settings

FIRST = 2  # seeds to begin with; one pair is enough to convict


@dataclass(frozen=True)
class Detection:
    """`memorized`: score >= tau, in the released variant > tau. `score`: of the first `samples` seeds: of all of them for a caption that is not
    memorized, of as many as it took for one that is. `screened`: set aside after few seeds as far below tau.
    `evaluations`: U-Net sample evaluations spent. `p`: p-value of the score among the hold-out captions' (`Calibration.p_value`); after fewer
    seeds than all it is an upper bound. None for a calibration without scores.
    """

    prompt: str
    score: float
    tau: float
    memorized: bool
    evaluations: int
    samples: int
    screened: bool
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Screen:
    """Set a caption aside if its score after `samples` seeds is under `below`. Measured on the hold-out captions of a calibration:
    `recall`, the share of those that reach tau in the end and are not set aside (`positives` of them); `saved`, the share of all that is.
    """

    samples: int
    below: float
    recall: float
    positives: int
    saved: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Screen:
        """Raises InputError for what `to_json` does not give."""
        if set(values) != {field.name for field in fields(cls)}:
            raise InputError(f"a screen of another findnemo version: {sorted(values)!r:.200}")
        return cls(**values)


def screen(calibration: Calibration, samples: int | None = None, recall: float = 0.99) -> Screen:
    """The screen with the highest `below` whose recall on the calibration's hold-out captions is at least `recall`.

    `samples`: seeds to look at first, by default four. Raises InputError for a calibration without scores (imported statistics), or
    in which no hold-out caption reaches tau, and for the mean of pairs: it can fall with more seeds, so that a p-value after a few would be too small.
    """
    if calibration.settings.pairs == "mean":
        raise InputError(
            "a screen needs a score that more seeds cannot lower: calibrate with variant 'paper', or leave the screen out"
        )
    scores = calibration.trajectories.double()
    if not len(scores):
        raise InputError(
            "this calibration has no hold-out scores (imported statistics), so nothing to measure a screen on: make one with `findnemo calibrate "
            "--prompts`, or leave the screen out"
        )
    samples = min(2 * FIRST, calibration.settings.samples - 1) if samples is None else samples
    if not 2 <= samples < calibration.settings.samples:
        raise InputError(
            f"a screen takes 2 to {calibration.settings.samples - 1} seeds, not {samples}"
        )
    early, positive = (
        scores[:, samples - 2],
        calibration.settings.reaches(scores[:, -1], calibration.tau),
    )
    if not positive.any():
        raise InputError(
            "this calibration cannot tell what a screen would miss: no hold-out caption in it reaches tau"
        )
    ranked = early[positive].sort(descending=True).values
    keep = -int(-recall * len(ranked) // 1)  # rounded up
    below = float(ranked[max(keep, 1) - 1])
    return Screen(
        samples,
        below,
        float((early[positive] >= below).double().mean()),
        len(ranked),
        float((early < below).double().mean()),
    )


def detect(
    model: Model,
    prompt: str,
    calibration: Calibration,
    screen: Screen | None = None,
    all_seeds: bool = False,
) -> Detection:
    """Decide whether a prompt is memorized, with no more seeds than that takes: the same decision as with all of them.

    Where the largest pair counts, one at or over tau settles it, so a memorized caption is often known after two seeds. Where the mean of all pairs counts,
    or a pair's value depends on the other seeds (released variant), all are looked at. With a `screen` a caption that is far
    below tau after a few seeds is set aside, which can miss memorized ones: see `Screen.recall`. `all_seeds`: score memorized captions
    with all seeds too, for the smallest p-values. For many captions `detect_many` is faster. Raises MismatchError for a calibration of another model, NumericalError on NaN.

    >>> import findnemo
    >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
    >>> findnemo.detect(model, "a purple moon with a dotted ground", calibration).memorized
    False
    """
    answer = detect_many(model, [prompt], calibration, screen, all_seeds)[0]
    if isinstance(answer, NumericalError):
        raise answer
    return answer


def detect_many(
    model: Model,
    prompts: Sequence[str],
    calibration: Calibration,
    screen: Screen | None = None,
    all_seeds: bool = False,
) -> list[Detection | NumericalError]:
    """`detect` for several prompts at once, whose seeds share passes: two of every caption, two more of those undecided, then the rest.

    Give as many at a time as `group_size` says; all their noise differences are held. A caption for which the model gives NaN has the error for an
    answer, and the others their own. Raises MismatchError for a calibration of another model.
    """
    calibration.check(model)
    settings, tau = calibration.settings, calibration.tau
    prompts = list(captions_in(prompts))
    if not prompts:
        return []
    texts = model.encode(prompts)
    deltas: list[Tensor] = [torch.empty(0)] * len(prompts)
    answers: dict[int, Detection | NumericalError] = {}
    seen = 0
    for count in _stages(settings, screen):
        open_ = [i for i in range(len(prompts)) if i not in answers]
        if not open_:
            break
        rows = [(i, k) for i in open_ for k in range(seen, count)]
        probe = Probe.of_many(
            model, [(prompts[i], k) for i, k in rows], settings, texts[[i for i, _ in rows]]
        )
        parts = probe.deltas().split(count - seen)
        cost, seen = probe.evaluations // len(rows), count  # two a latent under guidance
        for i, part in zip(open_, parts, strict=True):
            if (reason := fault(part)) is not None:
                answers[i] = NumericalError(f"{reason} (caption {prompts[i]!r})")
                continue
            deltas[i] = torch.cat([deltas[i].to(part.device), part]) if len(deltas[i]) else part
            score = memorization_score(deltas[i], settings.similarity, settings.pairs)
            over = settings.reaches(score, tau)
            aside = screen is not None and seen == screen.samples and score < min(screen.below, tau)
            if (over and settings.grows and not all_seeds) or aside or seen == settings.samples:
                p = calibration.p_value(score)
                answers[i] = Detection(prompts[i], score, tau, over, cost * seen, seen, aside, p)
    return [answers[i] for i in range(len(prompts))]


def _stages(settings: Settings, screen: Screen | None) -> list[int]:
    """How many seeds to have seen when looking: 2 and 4, where few can settle it; those of the screen; all."""
    stops = ({FIRST, 2 * FIRST} if settings.grows else set()) | (
        {screen.samples} if screen else set()
    )
    return [*sorted(n for n in stops if n < settings.samples), settings.samples]
