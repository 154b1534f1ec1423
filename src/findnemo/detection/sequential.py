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

FIRST = 2  # seeds at the start; one pair is enough to convict


@dataclass(frozen=True)
class Detection:
    """The decision about a prompt.

    `memorized`: score >= tau, in the released variant > tau. This is the paper's definition. No
    image is looked at; a run calls such a caption suspected until a copy is seen (`runs.state`).

    `score`: the score of the first `samples` seeds, as many as the decision took. If the mean of
    all pairs counts, a memorized caption has the score of all seeds, and another one that of the
    seeds looked at. If the largest pair counts it is the other way round. `evaluations`: U-Net
    sample evaluations spent. `p`: p-value of the score among the scores of the hold-out captions
    (`Calibration.p_value`). If fewer seeds than all decided, it is an upper bound: the p-value of
    the smallest score which all seeds can still give. None for a calibration without scores.
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
    """Decide whether a prompt is memorized, with no more seeds than needed.

    If the largest pair counts, one pair at or over tau decides, so a memorized caption is often
    known after two seeds. If the mean of all pairs counts, a low score after two or three seeds
    decides that the caption is not memorized. This loses at most a share `miss` of the captions
    that all seeds would find (`Calibration.early_bounds`). It loses none for 0 and for None, which
    looks at all seeds. If the value of a pair depends on the other seeds (released variant), all
    seeds are looked at.

    `all_seeds`: score every caption with all seeds. For many captions `detect_many` is faster.
    Raises MismatchError for a calibration of another model, InputError for a `miss` outside [0, 1),
    NumericalError on NaN.

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
    """`detect` for several prompts at once. Their seeds share passes: two of every caption, then
    more of the undecided ones.

    Give as many prompts at a time as `group_size` says, because all their noise differences are
    held in memory. If the model gives NaN for a caption, its answer is the error; the others have
    their own answers. Raises MismatchError for a calibration of another model.
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
        cost = spent.evaluations // len(rows)  # two evaluations a latent under guidance
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
    """The numbers of seeds after which to decide: those with a bound, or 2 and 4 if few can
    convict; then all.
    """
    early = [n for n in (FIRST, 2 * FIRST) if settings.grows and n < settings.samples]
    return [*(bounds or early), settings.samples]


def _least(score: float, seen: int, settings: Settings) -> float:
    """The smallest final score that all seeds can give, after this score of those seen."""
    if settings.grows or seen == settings.samples:
        return score
    return float(least_after(torch.tensor(score), seen, settings.samples))
