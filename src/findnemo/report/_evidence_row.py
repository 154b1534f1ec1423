"""The ingredients of a row of the evidence pack: contents of a run, figures with intervals,
sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from findnemo.calibration import Calibration
from findnemo.report._facts import median
from findnemo.report._text import interval, number, percent
from findnemo.runs import Caption, Run
from findnemo.stats import wilson

AUDIT = "findnemo audit MODEL --prompts FILE --out RUN"
VERIFY = "findnemo verify RUN"

Figure = dict[str, Any]


@dataclass(frozen=True)
class RunContents:
    """The contents of a run, read once. `calibration`: None for a run with only detectors."""

    run: Run
    captions: Sequence[Caption]
    settings: Mapping[str, Any]
    calibration: Calibration | None


@dataclass(frozen=True)
class Row:
    """One attack class.

    `attack`: its name. `measures`: what findnemo measures about it. `result`: the outcome in a few
    lines, empty if it was not executed; then `why` gives the reason and `command` the command that
    would execute it. `how`, `told`: procedure and outcome in sentences. `figures`: each with
    `name`, `value` and its 95 % interval. `not_covered`: what else the class includes.
    """

    attack: str
    measures: str
    not_covered: tuple[str, ...]
    result: tuple[str, ...] = ()
    why: str = ""
    command: str = ""
    how: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"executed": bool(self.figures)} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


# figures ------------------------------------------------------------------------------------------


def figure(
    name: str,
    value: float,
    n: int | None = None,
    ends: tuple[float, float] | None = None,
    by: str | None = None,
    hits: int | None = None,
) -> Figure:
    """A figure with its 95 % interval; `by`: the method of the interval."""
    low, high = (None, None) if ends is None else (round(ends[0], 4), round(ends[1], 4))
    about = {"n": n, "hits": hits, "interval": None if ends is None else by}
    return {"name": name, "value": round(value, 4), "low": low, "high": high, **about}


def share(name: str, hits: int, of: int) -> Figure:
    """A share with Wilson's interval.

    >>> [share("copies", 0, 4)[key] for key in ("value", "low", "high")]
    [0.0, 0.0, 0.4899]
    """
    return figure(name, hits / of, of, wilson(hits, of), "Wilson", hits)


def in_words(one: Figure) -> str:
    """
    >>> in_words(share("copies", 1, 4))
    '1 of 4 (25 %, 95 % interval 4.6 % to 69.9 %)'
    >>> in_words(figure("AUROC", 0.5, 10))
    '0.500 (n = 10)'
    """
    if one["hits"] is not None:
        ends = interval(one["low"], one["high"], percent)
        return f"{one['hits']} of {one['n']} ({percent(one['value'])}, 95 % interval {ends})"
    ends = interval(one["low"], one["high"])
    parts = [f"95 % interval {ends}"] if ends else []
    parts += [] if one["n"] is None else [f"n = {one['n']}"]
    return number(one["value"]) + (f" ({', '.join(parts)})" if parts else "")


def middle(name: str, values: Sequence[float | None]) -> list[Figure]:
    """The median of the known values, if there are any."""
    found = median([value for value in values if value is not None])
    if found is None:
        return []
    ends = None if found.low is None or found.high is None else (found.low, found.high)
    return [figure(name, found.value, found.n, ends, "bootstrap over captions")]


def number_of(captions: Iterable[Caption], holds: Callable[[Caption], Any]) -> int:
    return sum(bool(holds(caption)) for caption in captions)


# rows -------------------------------------------------------------------------------------------


def verifying(held: RunContents) -> str:
    """The commands that verify; a run with only detectors needs an audit first."""
    return VERIFY if held.calibration is not None else f"{AUDIT} && {VERIFY}"


def with_figures(
    row: Row,
    figures: Sequence[Figure],
    told: Iterable[str] = (),
    how: Iterable[str] = (),
    result: tuple[str, ...] = (),
) -> Row:
    """A row with its figures; by default its result is the first two of them."""
    said = result or tuple(f"{one['name']}: {in_words(one)}" for one in figures[:2])
    return replace(row, result=said, how=tuple(how), told=tuple(told), figures=tuple(figures))
