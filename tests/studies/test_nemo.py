"""Algorithms 1 to 4 as published, with the changes of ablations."""

from __future__ import annotations

from dataclasses import replace

import pytest

import findnemo
from findnemo.neurons import NeuronSet
from findnemo.studies.nemo import listing, with_tau


@pytest.mark.slow
def test_the_listing_is_the_listing(work):
    caption = next(c for c in work.run.captions() if c.type == "VM")
    found = findnemo.localize(work.model, caption.text, work.calibration, "listing")
    mine = listing(work.model, caption.text, work.calibration)
    assert NeuronSet(mine["refined"]) == found.neurons
    assert NeuronSet(mine["candidates"]) == found.candidates
    assert mine["seconds"]["total"] == pytest.approx(
        sum(v for k, v in mine["seconds"].items() if k != "total")
    )


@pytest.mark.slow
def test_without_top_k_no_neuron_comes_in_for_its_strength_alone(work):
    caption = next(c for c in work.run.captions() if c.type == "VM")
    absolute = findnemo.activations(work.model, caption.text)
    z = work.calibration.z_scores(absolute)
    chosen = NeuronSet(
        listing(work.model, caption.text, work.calibration, top_k=False)["candidates"]
    )
    lowest = min((abs(float(z[name][i])) for name, i in chosen), default=0)
    everything = {n: (v.abs() > lowest - 1e-9).nonzero().flatten().tolist() for n, v in z.items()}
    assert chosen == NeuronSet(everything)  # a threshold on |z| and nothing else


@pytest.mark.slow
def test_thresholds_of_the_ablation_are_deviations_of_the_hold_out_scores(work):
    scores = work.calibration.scores.double()
    assert with_tau(work.calibration, 2.0).tau == pytest.approx(
        float(scores.mean() + 2 * scores.std())
    )
    assert with_tau(work.calibration, -1.0).tau == pytest.approx(
        float(scores.mean() - scores.std())
    )


def test_a_caption_under_tau_has_no_neurons_and_no_total(work):
    """Its clocks are those of what ran: nothing is selected and nothing refined."""
    caption = next(c for c in work.run.captions() if c.type == "VM")
    found = listing(work.model, caption.text, replace(work.calibration, tau=1.1))
    assert not found["memorized"]
    assert found["candidates"] == found["refined"] == {}
    assert list(found["seconds"]) == [
        "text encoder",
        "Alg. 1, noise differences",
        "Alg. 2, out-of-distribution neurons",
    ]
    assert found["evaluations"] == work.calibration.settings.samples
