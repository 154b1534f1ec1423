"""Which captions of a run can be listed as memorized with few ordinary ones among them: q-values,
and the list at a level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from findnemo.calibration import Calibration
from findnemo.errors import InputError
from findnemo.runs.store import Run
from findnemo.stats.rates import adjusted, holdout_needed

_P = """SELECT caption, stage, json_extract(payload, '$.p') FROM results
    WHERE status = 'done' AND stage IN ('detect', 'localize') ORDER BY caption, stage"""


ROUNDING = 1e-9  # tolerance of q-values


@dataclass(frozen=True)
class Discoveries:
    """The list at a false discovery rate: on average at most a share `level` of it are ordinary
    captions (Benjamini-Hochberg).

    `listed`: ids of the captions with q <= `level`, in the run's order. `tested`: number of
    captions with a p-value. `holdout`: number of scores behind the p-values. `needed`: how many
    would be needed, if too few of these are why the list is empty; else None.
    """

    level: float
    listed: tuple[int, ...]
    tested: int
    holdout: int
    needed: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"listed": list(self.listed)}


def p_values(run: Run) -> dict[int, float]:
    """Caption id -> p-value (`Caption.p`), of all captions of a run that have one.

    Nothing else about the captions is read.
    """
    # a row of the search comes after that of the detection
    return {caption: p for caption, _, p in run.query(_P) if p is not None}


def q_values(p: Mapping[int, float]) -> dict[int, float]:
    """Caption id -> q-value: Benjamini and Hochberg's adjusted p-value among all of `p`."""
    return dict(zip(p, adjusted(list(p.values())), strict=True))


def discoveries(p: Mapping[int, float], holdout: int, level: float) -> Discoveries:
    """The list at a level. `p`: caption id -> p-value, from `holdout` scores."""
    least = 1 / (holdout + 1)
    # p-values are multiples of it: rounding must not decide about one that equals the level
    listed = tuple(i for i, value in q_values(p).items() if value <= level * (1 + ROUNDING))
    # the smallest p-value, of a score over every hold-out score
    above = sum(value == least for value in p.values())
    needed = holdout_needed(len(p), level, max(above, 1)) if p and not listed else 0
    return Discoveries(level, listed, len(p), holdout, needed if needed > holdout else None)


def check_level(level: float | None) -> None:
    """Raises InputError for a level that is no rate."""
    if level is not None and not 0 < level < 1:
        raise InputError(f"--fdr {level} is not a rate between 0 and 1")


def list_of(run: Run, level: float | None = None) -> Discoveries | None:
    """The list of a run at a level, by default the run's own.

    None if there is no level, or if the calibration has no scores.
    """
    level = run.meta("settings").get("fdr") if level is None else level
    if level is None:
        return None
    holdout = len(Calibration.load(run.path / "calibration").trajectories)
    return discoveries(p_values(run), holdout, level) if holdout else None


def keep_list(run: Run) -> None:
    """Keep the list at the run's own level, if it has one: listed captions stay memorized whatever
    their images are (`standing.state`).
    """
    if run.meta("settings").get("fdr") is not None:
        found = list_of(run)
        run.set_meta("listed", [] if found is None else list(found.listed))


def list_told(result: Discoveries) -> str:
    """The list in one or two sentences.

    >>> list_told(Discoveries(0.1, (1, 2), 40, 600, None))
    '2 of 40 captions are listed at a false discovery rate of 10 %: on average at most so many of a list are ordinary captions.'
    """
    listed = len(result.listed)
    text = (
        f"{listed} of {result.tested} captions {'is' if listed == 1 else 'are'} listed at a false"
        f" discovery rate of {100 * result.level:g} %"
    )
    if result.needed is None:
        return f"{text}: on average at most so many of a list are ordinary captions."
    return (
        f"{text}: with {result.holdout} hold-out captions no p-value is under"
        f" 1/{result.holdout + 1}. It takes {result.needed} hold-out captions for those that stand"
        " above all of them."
    )
