"""Which captions of a run can be listed as memorized so that few of the list are ordinary: q-values, and the list at a level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from findnemo.calibration import Calibration
from findnemo.rates import adjusted, holdout_needed
from findnemo.runs.store import Caption, Run


@dataclass(frozen=True)
class Discoveries:
    """The list at a false discovery rate: on average a share of at most `level` of it are ordinary captions (Benjamini-Hochberg).

    `listed`: ids of the captions with q <= `level`, in the run's order. `tested`: captions with a p-value. `holdout`: scores that the
    p-values come from. `needed`: where too few of these are why the list is empty, how many it takes; else None.
    """

    level: float
    listed: tuple[int, ...]
    tested: int
    holdout: int
    needed: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"listed": list(self.listed)}


def p_of(caption: Caption) -> float | None:
    """The p-value of a caption: of its score over all seeds where neurons were sought, else that of its detection."""
    found, detected = caption.results.get("localize", {}), caption.results.get("detect", {})
    known = found.get("p")
    return detected.get("p") if known is None else known


def q_values(captions: Iterable[Caption]) -> dict[int, float]:
    """Caption id -> Benjamini and Hochberg's adjusted p-value among all these captions; without those that have no p-value."""
    p = {c.id: value for c in captions if (value := p_of(c)) is not None}
    return dict(zip(p, adjusted(list(p.values())), strict=True))


def discoveries(captions: Iterable[Caption], holdout: int, level: float) -> Discoveries:
    """The list at a level, of captions with p-values from `holdout` scores."""
    captions = list(captions)
    q, least = q_values(captions), 1 / (holdout + 1)
    listed = tuple(i for i, value in q.items() if value <= level)
    above = sum(p_of(c) == least for c in captions)  # over every hold-out score: no p-value is smaller
    needed = holdout_needed(len(q), level, max(above, 1)) if q and not listed else 0
    return Discoveries(level, listed, len(q), holdout, needed if needed > holdout else None)


def list_of(run: Run, level: float | None = None) -> Discoveries | None:
    """The list of a run at a level, by default the one it was made with; None without either, or for a calibration without scores."""
    level = run.meta("settings").get("fdr") if level is None else level
    holdout = len(Calibration.load(run.path / "calibration").trajectories) if level is not None else 0
    return discoveries(run.captions(), holdout, level) if level is not None and holdout else None


def told(made: Discoveries) -> str:
    """The list in one sentence or two.

    >>> told(Discoveries(0.1, (1, 2), 40, 600, None))
    '2 of 40 captions are listed at a false discovery rate of 10 %: on average at most so many of a list are ordinary captions.'
    """
    listed = len(made.listed)
    text = f"{listed} of {made.tested} captions {'is' if listed == 1 else 'are'} listed at a false discovery rate of {100 * made.level:g} %"
    if made.needed is None:
        return f"{text}: on average at most so many of a list are ordinary captions."
    return (
        f"{text}: with {made.holdout} hold-out captions no p-value is under 1/{made.holdout + 1}. It takes {made.needed} hold-out captions "
        "for those that stand above all of them."
    )
