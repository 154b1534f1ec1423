"""Tables of the benchmark: a line for each method, with means over memories and bootstrap
intervals, overall and by kind of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, median
from typing import Any

import torch

from findnemo.benchmark.methods import METHODS
from findnemo.benchmark.natural import NATURAL_VERSION
from findnemo.benchmark.natural_scoring import UNTOUCHED
from findnemo.benchmark.plan import SUITE_VERSION
from findnemo.benchmark.planted_scoring import TRUTH
from findnemo.benchmark.results import Results
from findnemo.benchmark.scoring import Alarm
from findnemo.files.markdown import markdown_table
from findnemo.files.shapes import adapter
from findnemo.stats.intervals import bootstrap, wilson

REPEATS = 1000


@dataclass(frozen=True)
class MeanInterval:
    """A mean of `n` values with its 95 % interval; without a value if n is 0."""

    value: float | None
    low: float = 0.0
    high: float = 0.0
    n: int = 0

    def text(self, digits: int = 2) -> str:
        """
        >>> MeanInterval(0.5, 0.25, 0.75, 4).text(), MeanInterval(None).text()
        ('0.50 [0.25, 0.75]', '-')
        """
        if self.value is None:
            return "-"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def bare(self) -> str:
        """The value as text, without its interval."""
        return "-" if self.value is None else f"{self.value:.2f}"


def average(values: Sequence[float | None], middle: Callable[[Any], Any] = fmean) -> MeanInterval:
    """Mean, or another `middle`, of the existing values, with its bootstrap interval."""
    there = tuple(v for v in values if v is not None)
    if not there:
        return MeanInterval(None)
    return MeanInterval(float(middle(there)), *_interval(there, middle), len(there))


@cache
def _interval(values: tuple[float, ...], middle: Callable[[Any], Any]) -> tuple[float, float]:
    sample = torch.tensor(values, dtype=torch.float64)
    return bootstrap(lambda x: float(middle(x.tolist())), sample, repeats=REPEATS)


def share(hits: Sequence[bool]) -> MeanInterval:
    """Share of hits with its Wilson interval."""
    return (
        MeanInterval(fmean(hits), *wilson(sum(hits), len(hits)), len(hits))
        if hits
        else MeanInterval(None)
    )


Rows = dict[str, dict[str, MeanInterval]]  # method -> figure -> mean and interval
Figures = dict[str, Callable[[Sequence[Any]], MeanInterval]]
PLANTED: Figures = {
    "precision": lambda s: average([x.precision or 0.0 for x in s if x.neurons is not None]),
    "recall": lambda s: average([x.recall for x in s]),
    "of what is needed": lambda s: average([x.needed for x in s]),
    "size": lambda s: average([x.size for x in s]),
    "gone": lambda s: share([x.gone for x in s]),
    "copied": lambda s: share([x.copied for x in s]),
    "unrelated kept": lambda s: average([x.kept for x in s]),
    "evaluations": lambda s: average([float(x.evaluations) for x in s]),
}
NATURAL: Figures = {
    "gone": lambda s: share([x.gone for x in s]),
    "median copy": lambda s: average([x.median for x in s]),
    "largest copy": lambda s: average([x.largest for x in s]),
    "kept": lambda s: average([x.kept for x in s]),
    "kept at .95": lambda s: share([x.kept >= ENOUGH for x in s]),
    "alignment": lambda s: average([x.alignment for x in s]),
    "neurons": lambda s: average([x.neurons for x in s], median),
    "evaluations": lambda s: average([float(x.evaluations) for x in s], median),
    "seconds": lambda s: average([x.seconds for x in s], median),
}
FIGURES = {SUITE_VERSION: PLANTED, NATURAL_VERSION: NATURAL}
ENOUGH = 0.95
DIGITS = {"evaluations": 0, "neurons": 0, "seconds": 1}  # digits other than two
DIGITS |= dict.fromkeys(("unrelated kept", "kept", "alignment"), 3)
ALARMS = "false alarms"


def members(results: Results) -> str:
    """How many memories of each model were scored, out of those planted: `demo 24 of 24, seed1 11
    of 14`.
    """
    scored = {
        name: len({s.caption for s in results.scores if s.member == name})
        for name in results.members
    }
    return ", ".join(
        f"{name} {scored[name]} of {about['memories']}" for name, about in results.members.items()
    )


def names(results: Results) -> list[str]:
    """Methods in the order of the table: the truth, findnemo's methods, then those that others
    added.
    """
    there = dict.fromkeys(s.method for s in results.scores)
    known = [name for name in (TRUTH, UNTOUCHED, *METHODS) if name in there]
    return [*known, *(name for name in there if name not in known)]


def rows(results: Results) -> Rows:
    """The table of all methods.

    A caption on which a method found nothing counts as precision 0.
    """
    table: Rows = {}
    for method in names(results):
        scores = [s for s in results.scores if s.method == method]
        alarms = [a for a in results.alarms if (a.method, a.kind) == (method, "ordinary")]
        figures = {name: figure(scores) for name, figure in FIGURES[results.suite].items()}
        table[method] = figures | {ALARMS: false_alarms(alarms)}
    return table


def false_alarms(alarms: Sequence[Alarm]) -> MeanInterval:
    """Share of captions that are not memorized for which a method changes the model."""
    return share([a.neurons != 0 for a in alarms])


def apart(results: Results) -> dict[str, Results]:
    """The held-out members, and those on which methods were tuned: they never share a table."""
    held_out = {name for name, about in results.members.items() if about.get("held_out")}
    groups = {"held out": held_out, "tuned on": set(results.members) - held_out}
    return {name: results.only(group) for name, group in groups.items() if group}


def by_kind(results: Results, figure: str) -> Rows:
    """Kind -> method -> one of the figures."""
    table: Rows = {}
    for kind in dict.fromkeys(s.kind for s in results.scores):
        scores = [s for s in results.scores if s.kind == kind]
        table[kind] = {
            method: PLANTED[figure]([s for s in scores if s.method == method])
            for method in names(results)
        }
    return table


def markdown(results: Results) -> str:
    """The table of all methods in Markdown."""
    heads = [*FIGURES[results.suite], ALARMS]
    lines = [
        [method, *(figures[h].text(DIGITS.get(h, 2)) for h in heads)]
        for method, figures in rows(results).items()
    ]
    return markdown_table(["method", *heads], lines) + "\n"


def kinds_markdown(results: Results) -> str:
    """Precision / recall of every method in Markdown, a column for each kind of memory."""
    precision = by_kind(results, "precision")
    recall = by_kind(results, "recall")
    # a method that finds no neurons has neither
    shown = {m for row in precision.values() for m, f in row.items() if f.value is not None}
    methods = [m for m in names(results) if m != TRUTH and m in shown]
    columns = {
        f"{kind} (n = {max(f.n for f in row.values())})": [
            f"{row[m].bare()} / {recall[kind][m].bare()}" for m in methods
        ]
        for kind, row in precision.items()
    }
    return _columns_markdown(methods, columns)


def alarms_markdown(results: Results) -> str:
    """Share of captions that are not memorized for which a method changes the model, in Markdown, a
    column for each kind of caption.
    """
    methods = [m for m in names(results) if m != TRUTH]
    columns: dict[str, list[str]] = {}
    for kind in dict.fromkeys(a.kind for a in results.alarms):
        alarms = [a for a in results.alarms if a.kind == kind]
        figures = [false_alarms([a for a in alarms if a.method == m]) for m in methods]
        columns[f"{kind} (n = {max(f.n for f in figures)})"] = [f.bare() for f in figures]
    return _columns_markdown(methods, columns)


def _columns_markdown(methods: Sequence[str], columns: Mapping[str, Sequence[str]]) -> str:
    lines = zip(methods, *columns.values(), strict=True)
    return markdown_table(["method", *columns], lines) + "\n"


def to_json(results: Results) -> dict[str, Any]:
    """The tables as numbers, in two parts (`apart`)."""
    about = {"made": results.made, "members": results.members}
    parts = apart(results).items()
    return about | {part: adapter(Rows).dump_python(rows(own)) for part, own in parts}
