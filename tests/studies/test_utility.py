"""Utility: what the neurons cost captions that are not memorized."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
import torch

import findnemo
from findnemo.edits import deactivate
from findnemo.runs.standing import all_neurons
from findnemo.studies.utility import compared, mean_of_draws, with_interval


@pytest.mark.slow
def test_utility_is_measured_on_sets_and_captions_with_the_neurons_off(made):
    work = made.work
    from findnemo.metrics import fid, kid
    from findnemo.seeds import UNTOUCHED, WANTED

    settings = work.plan.image_settings
    prompts = [c.text for c in work.run.captions() if not c.type]
    off = all_neurons([c for c in work.run.captions() if c.type])

    def images(sample):
        return [findnemo.generate(work.model, p, [sample], settings)[0] for p in prompts]

    real = images(WANTED)
    before = images(UNTOUCHED)
    with deactivate(work.model, off):
        after = images(UNTOUCHED)
    main = work.run.meta("quality")["utility"]
    look = work.judges.descriptor
    assert (main["captions"], main["neurons"]) == (len(prompts), len(off))
    for name, distance in (("FID (descriptor)", fid), ("KID (descriptor)", kid)):
        values = main["sets"][name]
        assert values["untouched"]["value"] == pytest.approx(distance(real, before, look), abs=1e-3)
        assert values["found"]["value"] == pytest.approx(distance(real, after, look), abs=1e-3)
        assert values["found"]["gap"] == pytest.approx(
            values["found"]["value"] - values["untouched"]["value"], abs=2e-6
        )
        assert all(one["low"] <= one["high"] for one in values.values())
    gaps = [
        np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() / 255
        for a, b in zip(before, after, strict=True)
    ]
    assert main["changes"]["pixel_change"]["found"]["median"] == pytest.approx(
        median(gaps), abs=1e-3
    )
    cosines = (look(before) * look(after)).sum(1).tolist()
    assert main["changes"]["sscd_gen"]["found"]["median"] == pytest.approx(
        median(cosines), abs=1e-3
    )


@pytest.mark.slow
def test_an_interval_is_about_the_figure_and_as_wide_as_theory_says():
    rows = torch.randn(400, generator=torch.Generator().manual_seed(1)).double()
    mean = with_interval(lambda at: float(rows[at].mean()), 400)
    half = 1.96 * float(rows.std()) / 20
    assert mean["high"] - mean["low"] == pytest.approx(2 * half, rel=0.2)
    assert (mean["high"] + mean["low"]) / 2 == pytest.approx(mean["value"], abs=0.3 * half)
    biased = with_interval(
        lambda at: float(len(at.unique())), 400
    )  # a resample has 63 % of the captions; the whole has them all
    assert biased["low"] < biased["value"] == 400 < biased["high"]


@pytest.mark.slow
def test_the_difference_to_random_neurons_is_paired():
    drawn = [[0.1, 0.2, 0.9], [0.3, 0.2, 0.9]]
    told = compared([0.3, 0.3, 1.0], mean_of_draws(drawn), 0.0)
    assert told["random"]["median"] == pytest.approx(0.2)
    assert told["found less random"]["median"] == pytest.approx(0.1)  # .1, .1, .1
    assert (
        told["found less random"]["low"]
        == pytest.approx(told["found less random"]["high"])
        == pytest.approx(0.1)
    )
    assert told["found"]["ninth"] == 1.0


def test_a_figure_that_is_the_same_for_all_captions_has_no_width():
    told = with_interval(lambda at: 0.25, 12)
    assert told == {"value": 0.25, "low": 0.25, "high": 0.25}


def test_nine_captions_in_ten_stay_within_the_ninth_change():
    """From no change, which is 1 for similarities; without draws nothing is compared with them."""
    found = [1.0, 0.9, 1.05, 0.98, 1.0, 1.0, 1.0, 0.99, 0.2, 1.0]
    told = compared(found, mean_of_draws([]), 1.0)
    assert list(told) == ["found"]
    assert told["found"]["ninth"] == 0.9
    assert told["found"]["median"] == 1.0
