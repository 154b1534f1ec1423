"""The benchmark's tables: a line a method, means over memories with bootstrap intervals, and the same by kind of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any

import torch

from findnemo.benchmark.methods import METHODS
from findnemo.benchmark.results import Results, kinds
from findnemo.benchmark.scoring import TRUTH, Alarm, Score
from findnemo.metrics.intervals import bootstrap, wilson

REPEATS = 1000


@dataclass(frozen=True)
class Figure:
    """A mean with its 95 % interval, of `n` values; no value where n is 0."""

    value: float | None
    low: float = 0.0
    high: float = 0.0
    n: int = 0

    def text(self, digits: int = 2) -> str:
        """
        >>> Figure(0.5, 0.25, 0.75, 4).text(), Figure(None).text()
        ('0.50 [0.25, 0.75]', '-')
        """
        return "-" if self.value is None else f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def average(values: Sequence[float]) -> Figure:
    """Mean and bootstrap interval."""
    if not values:
        return Figure(None)
    return Figure(mean(values), *_interval(tuple(values)), len(values))


@cache
def _interval(values: tuple[float, ...]) -> tuple[float, float]:
    return bootstrap(lambda x: float(x.mean()), torch.tensor(values, dtype=torch.float64), repeats=REPEATS)


def share(hits: Sequence[bool]) -> Figure:
    """Share and Wilson interval."""
    return Figure(mean(hits), *wilson(sum(hits), len(hits)), len(hits)) if hits else Figure(None)


FIGURES: dict[str, Callable[[Sequence[Score]], Figure]] = {
    "precision": lambda s: average([0.0 if x.precision is None else x.precision for x in s]),
    "recall": lambda s: average([x.recall for x in s]),
    "of what is needed": lambda s: average([x.needed for x in s]),
    "size": lambda s: average([x.size for x in s]),
    "gone": lambda s: share([x.gone for x in s]),
    "copied": lambda s: share([x.copied for x in s]),
    "unrelated kept": lambda s: average([x.kept for x in s]),
    "evaluations": lambda s: average([float(x.evaluations) for x in s]),
}
DIGITS = {"evaluations": 0, "unrelated kept": 3}  # digits, where they are not two
ALARMS = "false alarms"


def members(results: Results) -> str:
    """How many memories of which models were scored, of how many that were planted: `demo 24 of 24, seed1 11 of 14`."""
    scored = {name: len({s.caption for s in results.scores if s.member == name}) for name in results.members}
    return ", ".join(f"{name} {scored[name]} of {about['memories']}" for name, about in results.members.items())


def names(results: Results) -> list[str]:
    """Methods in the order of the table: the truth, those of findnemo, then those that others added."""
    there = dict.fromkeys(s.method for s in results.scores)
    known = [name for name in (TRUTH, *METHODS) if name in there]
    return [*known, *(name for name in there if name not in known)]


def rows(results: Results) -> dict[str, dict[str, Figure]]:
    """Method -> figure -> mean and interval. A caption for which a method found nothing counts as precision 0."""
    table = {}
    for method in names(results):
        scores = [s for s in results.scores if s.method == method]
        alarms = [a for a in results.alarms if a.method == method]
        table[method] = {name: figure(scores) for name, figure in FIGURES.items()} | {ALARMS: false_alarms(alarms)}
    return table


def false_alarms(alarms: Sequence[Alarm]) -> Figure:
    """Share of captions that are not memorized for which neurons were returned."""
    return share([a.neurons > 0 for a in alarms])


def by_kind(results: Results, figure: str = "precision") -> dict[str, dict[str, Figure]]:
    """Kind -> method -> one of the figures."""
    return {
        kind: {
            method: FIGURES[figure]([s for s in results.scores if (s.kind, s.method) == (kind, method)])
            for method in names(results)
        }
        for kind in kinds(results)
    }


def markdown(results: Results) -> str:
    """The table of all methods."""
    heads = [*FIGURES, ALARMS]
    lines = [_line(["method", *heads]), _line(["---", *["---:"] * len(heads)])]
    for method, figures in rows(results).items():
        lines.append(_line([method, *(figures[h].text(DIGITS.get(h, 2)) for h in heads)]))
    return "\n".join(lines) + "\n"


def kinds_markdown(results: Results) -> str:
    """Precision / recall of every method, by kind of memory."""
    first, second = by_kind(results, "precision"), by_kind(results, "recall")
    methods = [m for m in next(iter(first.values()), {}) if m != TRUTH]
    lines = [_line(["kind", "n", *methods]), _line(["---", *["---:"] * (len(methods) + 1)])]
    for kind in first:
        cells = [f"{_plain(first[kind][m])} / {_plain(second[kind][m])}" for m in methods]
        lines.append(_line([kind, str(max(f.n for f in first[kind].values())), *cells]))
    return "\n".join(lines) + "\n"


def to_json(results: Results) -> dict[str, Any]:
    """The tables as numbers."""
    return {
        "made": dict(results.made),
        "members": {n: dict(m) for n, m in results.members.items()},
        "methods": {m: {name: f.__dict__ for name, f in figures.items()} for m, figures in rows(results).items()},
    }


def _plain(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
