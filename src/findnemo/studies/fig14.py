"""Figures 14 and 15: how the thresholds theta_act and k of Algorithm 2 decide what is left of a memory."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from findnemo.calibration import Calibration
from findnemo.localization import evidence, out_of_distribution_neurons
from findnemo.runs.audit import Answer
from findnemo.runs.store import Caption
from findnemo.studies._bench import Bench, Desk, Study, by_type
from findnemo.studies._figure import figure
from findnemo.studies._table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THETAS, KS = (1.0, 2.0, 3.0, 4.0, 5.0), (0, 5, 10, 15, 20)


def fig14(bench: Bench) -> Study:
    """Same-seed similarity with the candidates of every pair of thresholds off, and how many they are; medians over captions."""
    captions = bench.sample()
    results = bench.each("fig14", captions, partial(_grid, calibration=bench.calibration))
    figures, tables = {}, []
    for number, (kind, group) in enumerate(by_type(captions, none="no type").items()):
        chosen = [results[c.id] for c in group if c.id in results]
        if not chosen:
            continue
        similarity, sizes = (
            np.median([r[key] for r in chosen], axis=0) for key in ("similarity", "neurons")
        )
        figures[f"fig{14 + number}"] = _heat(similarity, sizes, f"{kind}, n = {len(chosen)}")
        rows = [
            [f"{theta:g}", *(f"{similarity[i][j]:.2f} ({sizes[i][j]:.0f})" for j in range(len(KS)))]
            for i, theta in enumerate(THETAS)
        ]
        tables.append(
            Table(f"{kind}: similarity (neurons)", ["theta_act", *(f"k = {k}" for k in KS)], rows)
        )
    text = (
        f"Low is good: the memory is gone at tau = {bench.calibration.tau:.3f} and below. The further to the top left, the fewer neurons. The "
        "thresholds start in that corner and are relaxed until the memory is gone (Algorithm 3)."
    )
    return Study("Figures 14 and 15: thresholds", text, tables, figures)


def _grid(desk: Desk, caption: Caption, calibration: Calibration) -> Answer:
    seen = evidence(desk.model, caption.text, calibration)
    replication = seen.replication
    sets = [
        [out_of_distribution_neurons(seen.z, seen.absolute, theta, k) for k in KS]
        for theta in THETAS
    ]
    similarity = [
        [replication.similarity(s) if replication.kept else median([1.0]) for s in row]
        for row in sets
    ]
    return Answer({"similarity": similarity, "neurons": [[len(s) for s in row] for row in sets]})


def _heat(similarity: np.ndarray, sizes: np.ndarray, title: str) -> Figure:
    with figure(width=3.8, height=3.2) as (made, (axis,)):
        shown = axis.imshow(similarity[::-1], cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(KS)), [str(k) for k in KS])
        axis.set_yticks(range(len(THETAS)), [f"{theta:g}" for theta in reversed(THETAS)])
        axis.set(xlabel="k", ylabel="theta_act", title=title)
        axis.grid(visible=False)
        for i in range(len(THETAS)):
            for j in range(len(KS)):
                value, size = similarity[::-1][i][j], sizes[::-1][i][j]
                axis.text(
                    j,
                    i,
                    f"{value:.2f}\n{size:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if value > 0.5 else "black",
                )
        made.colorbar(shown, label="same-seed similarity")
    return made
