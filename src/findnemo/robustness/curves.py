"""Summaries of attacks on many captions: curves over the steps of an attack with intervals, the gap
between two curves, and shares of copies.

All functions are pure, on plain values as a run keeps them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch

from findnemo.metrics.copies import COPY
from findnemo.stats import mean_interval, wilson

LEAST = 3  # captions that an interval needs
Point = tuple[int, float, float | None, float | None]  # step, value, ends of its 95 % interval
Rows = Sequence[Mapping[int, float]]


def strongest(starts: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[int, float]:
    """Step -> similarity of the best embedding so far: the largest mean over images, among starts
    and steps up to this one.

    An attacker has the picture, and keeps the embedding that comes nearest to it. So a search that
    ends worse than it began still has its beginning.

    >>> strongest({"caption": {"0": [0.1, 0.3], "5": [0.1]}, "random": {"0": [0.0], "5": [0.1]}})
    {0: 0.2, 5: 0.2}
    """
    means = [(int(t), statistics.fmean(v)) for one in starts.values() for t, v in one.items()]
    steps = sorted({step for step, _ in means})
    return {step: max(mean for earlier, mean in means if earlier <= step) for step in steps}


def curve(subjects: Rows) -> list[Point]:
    """The mean over captions at each step that all captions have.

    Its 95 % interval is over captions (Student's t), from three captions on.

    >>> curve([{0: 0.0, 5: 1.0}, {0: 0.5, 5: 1.0}])
    [(0, 0.25, None, None), (5, 1.0, None, None)]
    """
    return [(step, *_with_interval([s[step] for s in subjects])) for step in _common(subjects)]


def gap(wanted: Rows, control: Rows, paired: bool = False) -> list[Point]:
    """The mean curve of the wanted pictures minus that of controls at each step, with an interval.

    `paired`: both have the same captions in the same order, and are compared one by one; otherwise
    captions and controls are independent. If the interval contains 0, there is no evidence that the
    attack gets more out of the model than it puts in.

    >>> gap([{5: 1.0}], [{5: 0.25}])
    [(5, 0.75, None, None)]
    """
    steps = [step for step in _common(wanted) if step in _common(control)]
    if paired:
        pairs = zip(wanted, control, strict=True)
        return curve([{step: one[step] - other[step] for step in steps} for one, other in pairs])
    samples = {step: [[row[step] for row in rows] for rows in (wanted, control)] for step in steps}
    return [(step, *_with_interval(*both)) for step, both in samples.items()]


def _common(subjects: Rows) -> list[int]:
    return sorted(set.intersection(*(set(s) for s in subjects))) if subjects else []


def _with_interval(*samples: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of the first sample, minus that of the second if given, and its interval."""
    first, *second = (torch.tensor(list(s), dtype=torch.float64) for s in samples)
    value = round(float(first.mean() - sum(s.mean() for s in second)), 4)
    if min(map(len, samples)) < LEAST:
        return value, None, None
    low, high = mean_interval(first, second[0] if second else None)
    return value, round(low, 4), round(high, 4)


def shares(subjects: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    """Attempt -> shares of copies over captions. `subjects`: for each caption, attempt -> closeness
    of its images.

    `images`: share of images that are copies. `captions`: number of the `n` captions with such
    an image. `low`, `high`: the Wilson interval (95 %) of the share of captions.

    >>> shares([{"seeds": [0.9, 0.1]}, {"seeds": [0.2, 0.1]}])["seeds"]["images"]
    0.25
    """
    names = dict.fromkeys(name for subject in subjects for name in subject)
    table = {}
    for name in names:
        rows = [subject[name] for subject in subjects if subject.get(name)]
        if not rows:
            continue
        hit = sum(max(row) >= COPY for row in rows)
        low, high = (round(end, 4) for end in wilson(hit, len(rows)))
        images = statistics.fmean(statistics.fmean(float(v >= COPY) for v in row) for row in rows)
        counts = {"images": round(images, 4), "captions": hit, "n": len(rows)}
        table[name] = {**counts, "low": low, "high": high}
    return table
