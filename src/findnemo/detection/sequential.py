"""Detection: which captions are memorized, by the memorization score against tau
(Finding NeMo, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from findnemo.calibration import MISS, Calibration, least_after
from findnemo.errors import NumericalError
from findnemo.models import Model, captions_in
from findnemo.passes import Rows, spending
from findnemo.scores import fault, memorization_score
from findnemo.settings import Settings

FIRST = 2  # seeds to begin with; one pair is enough to convict


@dataclass(frozen=True)
class Detection:
    """`memorized`: score >= tau, in the released variant > tau: the paper's definition. No image is
    looked at; a run calls such a caption suspected until a copy is seen (`runs.state`).

    `score`: of the first `samples` seeds, as many as it took. Where the mean of all pairs counts, it
    is of all seeds for a memorized caption, and of those looked at for another one; where the
    largest pair counts it is the other way round. `evaluations`: U-Net sample evaluations spent.
    `p`: p-value of the score among the hold-out captions' (`Calibration.p_value`); after fewer
    seeds than all it is an upper bound, that of the smallest score which all seeds can still give.
    None for a calibration without scores.
    """

    prompt: str
    score: float
    tau: float
    memorized: bool
    evaluations: int
    samples: int
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def detect(
    model: Model,
    prompt: str,
    calibration: Calibration,
    all_seeds: bool = False,
    miss: float | None = MISS,
) -> Detection:
    """Decide whether a prompt is memorized, with no more seeds than that takes.

    Where the largest pair counts, one at or over tau settles it, so a memorized caption is often
    known after two seeds. Where the mean of all pairs counts, a score that is low enough after two
    or three seeds settles that it is not: at most a share `miss` of those that all seeds would find
    is lost (`Calibration.early_bounds`), none for 0 and for None, which looks at all. Where a pair's value depends on the other
    seeds (released variant), all are looked at. `all_seeds`: score every caption with all of them.
    For many captions `detect_many` is faster. Raises MismatchError for a calibration of another
    model, InputError for a `miss` outside [0, 1), NumericalError on NaN.

    >>> import findnemo
    >>> model, calibration = findnemo.load("demo"), findnemo.demo.calibration()
    >>> findnemo.detect(model, "a purple moon with a dotted ground", calibration).memorized
    False
    """
    answer = detect_many(model, [prompt], calibration, all_seeds, miss)[0]
    if isinstance(answer, NumericalError):
        raise answer
    return answer


def detect_many(
    model: Model,
    prompts: Sequence[str],
    calibration: Calibration,
    all_seeds: bool = False,
    miss: float | None = MISS,
) -> list[Detection | NumericalError]:
    """`detect` for several prompts at once, whose seeds share passes: two of every caption, more of
    those undecided.

    Give as many at a time as `group_size` says; all their noise differences are held. A caption for
    which the model gives NaN has the error for an answer, and the others their own. Raises
    MismatchError for a calibration of another model.
    """
    calibration.check(model)
    settings = calibration.settings
    tau = calibration.tau
    bounds = {} if all_seeds or miss is None else calibration.early_bounds(miss)
    prompts = list(captions_in(prompts))
    if not prompts:
        return []
    texts = model.encode(prompts)
    deltas: list[Tensor] = [torch.empty(0)] * len(prompts)
    answers: dict[int, Detection | NumericalError] = {}
    seen = 0
    for count in _stages(settings, bounds):
        open_ = [i for i in range(len(prompts)) if i not in answers]
        if not open_:
            break
        rows = [(i, k) for i in open_ for k in range(seen, count)]
        latents = [(prompts[i], k) for i, k in rows]
        with spending() as spent:
            deltas_of = Rows(model, latents, settings, texts[[i for i, _ in rows]]).deltas()
        parts = deltas_of.split(count - seen)
        cost = spent.evaluations // len(rows)  # two a latent under guidance
        seen = count
        for i, part in zip(open_, parts, strict=True):
            if (reason := fault(part)) is not None:
                answers[i] = NumericalError(f"{reason} (caption {prompts[i]!r})")
                continue
            deltas[i] = torch.cat([deltas[i].to(part.device), part]) if len(deltas[i]) else part
            score = memorization_score(deltas[i], settings.similarity, settings.pairs)
            over = settings.reaches(score, tau)
            found = over and settings.grows and not all_seeds
            if found or score < bounds.get(seen, -math.inf) or seen == settings.samples:
                p = calibration.p_value(_least(score, seen, settings))
                answers[i] = Detection(prompts[i], score, tau, over, cost * seen, seen, p)
    return [answers[i] for i in range(len(prompts))]


def _stages(settings: Settings, bounds: Mapping[int, float]) -> list[int]:
    """How many seeds to have seen when looking: those with a bound, or 2 and 4 where few can convict;
    all.
    """
    early = [n for n in (FIRST, 2 * FIRST) if settings.grows and n < settings.samples]
    return [*(bounds or early), settings.samples]


def _least(score: float, seen: int, settings: Settings) -> float:
    """The smallest score that all seeds can give after this one of those seen."""
    if settings.grows or seen == settings.samples:
        return score
    return float(least_after(torch.tensor(score), seen, settings.samples))
