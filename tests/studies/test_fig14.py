"""Figures 14 and 15: what the thresholds leave of a memory."""

from __future__ import annotations

import pytest
from _workshop import cells

import findnemo
from findnemo.localization import out_of_distribution_neurons
from findnemo.passes.deltas import Probe
from findnemo.runs.standing import neurons_of
from findnemo.scores import pairwise, ssim
from findnemo.studies.fig14 import KS, THETAS


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
