"""The geometry of the charts.

The template draws them; colours come from the page, so that they follow its theme.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from findnemo.neurons import Neuron
from findnemo.report._text import count, minus

# size and margins of every chart, in its own units
WIDTH = 640
LEFT = 130
RIGHT = 10
ACROSS = WIDTH - LEFT - RIGHT  # the drawing area
# height of a row of the distribution, and of its tallest bar
ROW = 64
BAR = 44
BINS = 40
LAYER = 28  # height of a layer in the map of neurons
# height of a chart of curves, and its margins above and below
PLOT = 220
MARGIN = 12
FRAME = {"height": PLOT, "width": WIDTH, "left": LEFT, "right": RIGHT}


@dataclass(frozen=True)
class Axis:
    """A linear scale from `low` to `high` over the drawing area."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Position in the chart's units, inside the drawing area."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(LEFT + min(max(share, 0.0), 1.0) * ACROSS, 2)

    def ticks(self) -> list[tuple[float, str]]:
        """At most nine round values with their positions.

        >>> [text for _, text in Axis(0, 1).ticks()]
        ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
        """
        return [(self.at(value), text) for value, text in round_values(self.low, self.high, 8)]


def round_values(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """At most `most` steps of 1, 2 or 5 times a power of ten from `low` to `high`, with their
    texts.

    >>> round_values(-0.1, 0.6, 4)
    [(0.0, '0.0'), (0.2, '0.2'), (0.4, '0.4'), (0.6, '0.6')]
    """
    span = high - low or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= most)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [
        round(k * step, 12)
        for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]
    return [(value, minus(f"{value:.{digits}f}")) for value in values]


class Strip(NamedTuple):
    """A row of the distribution: `bars` are (x, top, width, height) in the chart's units."""

    label: str
    kind: str
    values: Sequence[float]
    bars: list[tuple[float, ...]]
    base: float


def distribution(
    groups: Sequence[tuple[str, str, Sequence[float]]],
    tau: float,
    interval: tuple[float, float] | None,
) -> dict[str, Any]:
    """Histograms of scores below each other on one axis, with tau.

    `groups`: (label, kind, values); empty ones are left out. Each row is scaled to its own fullest
    bin: rows compare positions, not numbers.
    """
    groups = [g for g in groups if len(g[2])]
    everything = [v for _, _, values in groups for v in values] + [tau]
    low = math.floor(10 * min(everything)) / 10
    high = math.ceil(10 * max(everything)) / 10
    axis = Axis(low, high if high > low else low + 0.1)
    strips = [_strip(k, *group, axis) for k, group in enumerate(groups)]
    return {
        "strips": strips,
        "ticks": axis.ticks(),
        "tau": axis.at(tau),
        "interval": None if interval is None else (axis.at(interval[0]), axis.at(interval[1])),
        "height": 20 + ROW * len(strips),
        "width": WIDTH,
    }


def _strip(place: int, label: str, kind: str, values: Sequence[float], axis: Axis) -> Strip:
    shares = [(value - axis.low) / (axis.high - axis.low) for value in values]
    counts = Counter(min(int(share * BINS), BINS - 1) for share in shares)
    base = 20 + ROW * (place + 1) - 8
    width = ACROSS / BINS
    bars = []
    for k, n in sorted(counts.items()):
        height = max(BAR * n / max(counts.values()), 2)
        bar = (LEFT + k * width + 0.5, base - height, width - 1, height)
        bars.append(tuple(round(length, 2) for length in bar))
    return Strip(label, kind, values, bars, base)


def neuron_map(widths: Mapping[str, int], captions: Mapping[Neuron, int]) -> dict[str, Any]:
    """Layers as rows, as long as their widths, with a mark for every neuron.

    `captions`: neuron -> number of captions that it holds.
    """
    rows = []
    for number, (name, width) in enumerate(widths.items()):
        length = ACROSS * width / max(widths.values())
        mark = min(max(length / width - 1, 2), 8)
        marks = [
            {
                "x": round(LEFT + (index + 0.5) / width * length - mark / 2, 2),
                "width": round(mark, 2),
                "shared": n > 1,
                "text": f"#{index}: {count(n, 'caption')}",
            }
            for (layer, index), n in sorted(captions.items())
            if layer == name
        ]
        place = {"y": 10 + LAYER * number, "length": round(length, 2)}
        rows.append({"of": width, "marks": marks, **place})
    return {"rows": rows, "height": 10 + LAYER * len(rows), "width": WIDTH, "left": LEFT}


def sizes(counts: Sequence[int]) -> list[dict[str, Any]]:
    """How many captions have 1, 2, 3 to 4, 5 to 8, ... neurons, up to the largest number.

    >>> [(b["label"], b["captions"]) for b in sizes([1, 1, 2, 7])]
    [('1', 2), ('2', 1), ('3 to 4', 0), ('5 to 8', 1)]
    """
    bins: list[dict[str, Any]] = []
    low, high = 1, 1
    while counts and low <= max(counts):
        inside = sum(low <= c <= high for c in counts)
        bins.append({"label": str(low) if low == high else f"{low} to {high}", "captions": inside})
        low, high = high + 1, 2 * high
    most = max((b["captions"] for b in bins), default=1)
    return [b | {"share": b["captions"] / most} for b in bins]


def _heights(
    values: Sequence[float], low: float, high: float
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """The position of a value in a plot from `low` to `high`, extended if values lie outside; and
    its levels.
    """
    low, high = min(low, *values), max(high, *values)

    def at(value: float) -> float:
        return round(MARGIN + (high - value) / (high - low) * (PLOT - 2 * MARGIN), 2)

    return at, [(at(value), text) for value, text in round_values(low, high, 6)]


def curves(attack: Mapping[str, Any]) -> dict[str, Any]:
    """Curves of an attack over its steps.

    Of the attack, `curves` maps a name to [x, y] points in order, `bands` to [x, low, high]. `x`
    and `y` name the axes. `level`: where a line is drawn.
    """
    bands = attack.get("bands") or {}
    points = [(float(x), float(y)) for line in attack["curves"].values() for x, y in line]
    across = Axis(min(x for x, _ in points), max(x for x, _ in points))
    ends = [float(y) for band in bands.values() for _, *pair in band for y in pair]
    y_at, levels = _heights([y for _, y in points] + ends, 0.0, 1.0)

    def path(pairs: Sequence[Sequence[float]]) -> str:
        return " ".join(f"{across.at(float(x))},{y_at(float(y))}" for x, y in pairs)

    lines = [
        {"name": name, "kind": k, "path": path(line), "band": path(_around(bands.get(name, ())))}
        for k, (name, line) in enumerate(attack["curves"].items())
        if line
    ]
    level = {"level": y_at(attack["level"])} if "level" in attack else {}
    return {"lines": lines, "ticks": across.ticks(), "levels": levels, **level, **FRAME}


def _around(band: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """The outline of a band of [x, low, high] points.

    >>> _around([[0, 1, 2], [5, 3, 4]])
    [(0, 1), (5, 3), (5, 4), (0, 2)]
    """
    return [(x, low) for x, low, _ in band] + [(x, high) for x, _, high in reversed(band)]


def gaps(attack: Mapping[str, Any]) -> dict[str, Any] | None:
    """Gaps with their intervals, controls side by side at each step; None without gaps.

    `gaps` of the attack maps a name to [step, gap, low, high]; low and high are None without an
    interval.
    """
    lines = {name: points for name, points in (attack.get("gaps") or {}).items() if points}
    if not lines:
        return None
    steps = sorted({step for points in lines.values() for step, *_ in points})
    values = [v for points in lines.values() for _, *ys in points for v in ys if v is not None]
    y_at, levels = _heights(values, 0.0, 0.5)
    width = ACROSS / len(steps)

    def x_at(step: float, k: int) -> float:
        return round(LEFT + width * (steps.index(step) + (k + 1) / (len(lines) + 1)), 2)

    marks = [
        {
            "name": name,
            "kind": k,
            "points": [
                (x_at(step, k), *(None if y is None else y_at(y) for y in ys))
                for step, *ys in points
            ],
        }
        for k, (name, points) in enumerate(lines.items())
    ]
    ticks = [(round(LEFT + width * (k + 0.5), 2), f"{step:g}") for k, step in enumerate(steps)]
    return {"lines": marks, "ticks": ticks, "levels": levels, "zero": y_at(0.0), **FRAME}
