"""Figures 14 and 15: how the thresholds theta_act and k of Algorithm 2 decide what remains of a
memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from findnemo.calibration import Calibration
from findnemo.localization import evidence, out_of_distribution_neurons
from findnemo.runs.store import Caption
from findnemo.runs.work import StageAnswer
from findnemo.studies._bench import Bench, Desk, Study, by_type
from findnemo.studies.figure import figure
from findnemo.studies.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THETAS = (1.0, 2.0, 3.0, 4.0, 5.0)
KS = (0, 5, 10, 15, 20)


def fig14(bench: Bench) -> Study:
    """Same-seed similarity with the candidates of every pair of thresholds off, and their number;
    medians over captions.
    """
    captions = bench.sample()
    results = bench.each("fig14", captions, partial(_grid, calibration=bench.calibration))
    figures = {}
    tables = []
    for number, (kind, group) in enumerate(by_type(captions, none="no type").items()):
        chosen = [results[c.id] for c in group if c.id in results]
        if not chosen:
            continue
        similarity = np.median([r["similarity"] for r in chosen], axis=0)
        sizes = np.median([r["neurons"] for r in chosen], axis=0)
        figures[f"fig{14 + number}"] = _heat(similarity, sizes, f"{kind}, n = {len(chosen)}")
        rows = []
        for theta, values, counts in reversed(list(zip(THETAS, similarity, sizes, strict=True))):
            cells = [f"{v:.2f} ({n:.0f})" for v, n in zip(values, counts, strict=True)]
            rows.append([f"{theta:g}", *cells])
        heads = ["theta_act", *(f"k = {k}" for k in KS)]
        tables.append(Table(f"{kind}: similarity (neurons)", heads, rows))
    text = (
        f"Low is good: by the paper's score the memory is gone at tau = {bench.calibration.tau:.3f}"
        " and below. The"
        " further to the top left, the fewer neurons. The thresholds start in that corner and are"
        " relaxed until the memory is gone (Algorithm 3)."
    )
    return Study(text, tables, figures)


def _grid(desk: Desk, caption: Caption, calibration: Calibration) -> StageAnswer:
    seen = evidence(desk.model, caption.text, calibration)
    replication = seen.replication
    sets = [
        [out_of_distribution_neurons(seen.z, seen.absolute, theta, k) for k in KS]
        for theta in THETAS
    ]
    similarity = [
        [replication.similarity(s) if replication.kept else 1.0 for s in row] for row in sets
    ]
    return StageAnswer(
        {"similarity": similarity, "neurons": [[len(s) for s in row] for row in sets]}
    )


def _heat(similarity: np.ndarray, sizes: np.ndarray, title: str) -> Figure:
    with figure(width=3.8, height=3.2) as (sheet, (axis,)):
        shown = axis.imshow(similarity[::-1], cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
        axis.set_xticks(range(len(KS)), [str(k) for k in KS])
        axis.set_yticks(range(len(THETAS)), [f"{theta:g}" for theta in reversed(THETAS)])
        axis.set(xlabel="k", ylabel="theta_act", title=title)
        axis.grid(visible=False)
        style: Any = {"ha": "center", "va": "center", "fontsize": 7}
        for (i, j), value in np.ndenumerate(similarity[::-1]):
            label = f"{value:.2f}\n{sizes[::-1][i, j]:.0f}"
            axis.text(j, i, label, color="white" if value > 0.5 else "black", **style)
        sheet.colorbar(shown, label="same-seed similarity")
    return sheet
