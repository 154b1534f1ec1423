"""Figures 14 and 15: what the thresholds leave of a memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from _workshop import cells

import findnemo
from findnemo.localization import out_of_distribution_neurons
from findnemo.passes.deltas import Probe
from findnemo.runs.standing import neurons_of
from findnemo.scores import pairwise, ssim
from findnemo.studies import Bench
from findnemo.studies.fig14 import KS, THETAS, fig14


@pytest.mark.slow
def test_the_heat_map_is_the_similarity_with_those_candidates_off(made):
    work = made.work
    caption = next(c for c in work.run.captions() if c.type == "TM")
    kinds = list(
        dict.fromkeys(c.type for c in work.run.captions() if c.type and len(neurons_of(c)))
    )
    _, *rows = cells(made.folder, f"fig14-{kinds.index('TM') + 1}")
    absolute = findnemo.activations(work.model, caption.text)
    z = work.calibration.z_scores(absolute)
    probe = Probe(work.model, caption.text, work.calibration.settings)
    unblocked = probe.deltas()
    kept = [k for k, best in enumerate(pairwise(unblocked).amax(1)) if best >= work.calibration.tau]
    for i, j in ((0, 0), (2, 1), (4, 4)):
        neurons = out_of_distribution_neurons(z, absolute, THETAS[i], KS[j])
        value = float(ssim(unblocked, probe.deltas(neurons))[kept].max())
        of_theta = {row[0]: row[1:] for row in rows}[f"{THETAS[i]:g}"]
        assert of_theta[j] == f"{value:.2f} ({len(neurons)})"
    assert [float(row[0]) for row in rows] == sorted(THETAS, reverse=True)  # as the picture


def test_cells_are_medians_over_captions_with_the_strictest_threshold_first(bench, monkeypatch):
    captions = [c for c in bench.memorized_captions() if c.type == "VM"]
    wide = replace(bench, limit=2)
    # row by row for THETAS, column by column for KS
    one = {"similarity": [[0.1] * 5] * 4 + [[0.2, 0.3, 0.4, 0.5, 0.6]], "neurons": [[9] * 5] * 5}
    other = {"similarity": [[0.3] * 5] * 4 + [[0.4, 0.5, 0.6, 0.7, 0.8]], "neurons": [[1] * 5] * 5}
    results = dict(zip([c.id for c in captions], (one, other), strict=True))
    monkeypatch.setattr(Bench, "each", lambda self, name, captions, compute: results)
    made = fig14(wide)
    (table,) = made.tables  # the template failed, and has none
    assert table.columns == ["theta_act", *(f"k = {k}" for k in KS)]
    assert table.rows[0] == [
        f"{THETAS[-1]:g}",
        *(f"{v:.2f} (5)" for v in (0.3, 0.4, 0.5, 0.6, 0.7)),
    ]
    assert table.rows[1:] == [[f"{t:g}", *["0.20 (5)"] * 5] for t in reversed(THETAS[:-1])]
    assert list(made.figures) == ["fig14"]
