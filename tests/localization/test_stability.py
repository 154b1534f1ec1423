"""Agreement of sets by hand, and a consensus that removes the memory on the seeds of every search."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _tiny import tiny_pipeline
from hypothesis import given
from hypothesis import strategies as st

import findnemo
from findnemo import Model, NeuronSet
from findnemo.errors import InputError
from findnemo.localization import consensus_of, frequency, iou, localize_by_consensus, pairwise_iou
from findnemo.passes.deltas import Probe
from findnemo.scores import ssim

PROMPT, HOLDOUT = "a red fox", ["hold out a", "hold out b", "hold out c"]
SMALL = {
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
A, B, C = (NeuronSet({"a": indices}) for indices in ([0, 1], [1, 2], [1]))
SETS = st.lists(st.frozensets(st.integers(0, 8), min_size=1), min_size=1, max_size=6)


def test_agreement_by_hand():
    assert (iou(A, B), iou(A, C), iou(A, A)) == (pytest.approx(1 / 3), 0.5, 1.0)
    assert (iou(A, NeuronSet()), iou(NeuronSet(), NeuronSet())) == (0.0, 1.0)
    assert pairwise_iou([A, B, C]) == pytest.approx([1 / 3, 0.5, 0.5])
    assert frequency([A, B, C]) == pytest.approx({("a", 1): 1.0, ("a", 0): 1 / 3, ("a", 2): 1 / 3})


@given(SETS)
def test_a_consensus_is_what_more_than_half_hold_if_that_suffices(sets):
    found = consensus_of([NeuronSet({"a": s}) for s in sets], lambda neurons: True)
    assert set(found) == {("a", i) for i in range(9) if sum(i in s for s in sets) > len(sets) / 2}


@given(SETS, st.integers(0, 8))
def test_a_consensus_that_does_not_suffice_grows_in_order_of_frequency(sets, needed):
    made = [NeuronSet({"a": s}) for s in sets]
    found = consensus_of(made, lambda neurons: ("a", needed) in neurons)
    shares = frequency(made)
    assert set(found) <= set(shares)
    assert ("a", needed) in found or found == NeuronSet.of(
        shares
    )  # or it is in no set: then all that was found
    for neuron, share in shares.items():
        if neuron not in found:
            assert all(share <= shares[n] for n in found)


@given(st.lists(st.booleans(), min_size=9, max_size=9))
def test_a_consensus_was_seen_to_suffice_or_is_all_that_was_found(verdicts):
    """`gone` need not be monotone in the size of a set; no set is asked twice, and few are."""
    sets = [NeuronSet({"a": [0, k, k + 1]}) for k in range(1, 16, 2)]
    asked = []

    def gone(neurons):
        asked.append(neurons)
        return verdicts[min(len(neurons), 9) - 1]

    found, shares = consensus_of(sets, gone), list(frequency(sets))
    assert found == NeuronSet.of(shares[: len(found)])
    assert found in asked
    assert verdicts[min(len(found), 9) - 1] or len(found) == len(shares)
    assert len(asked) == len(set(asked)) <= 10


def test_no_sets_have_no_frequency():
    with pytest.raises(InputError, match="no sets"):
        frequency([])


@pytest.fixture(scope="module")
def model() -> Model:
    """16 neurons in two value layers, made loud so that they matter."""
    made = findnemo.load(tiny_pipeline(**SMALL))
    with torch.no_grad():
        made.denoiser.conv_out.weight *= 100
        for layer in made.value_layers.values():
            layer.weight *= 1000
    return made


@pytest.fixture(scope="module")
def calibration(model):
    """Under the scores of five base seeds, and over what is left with all neurons off."""
    made = findnemo.calibrate(model, HOLDOUT, settings=findnemo.Settings(samples=4))
    scores = [
        findnemo.score(model, PROMPT, settings=replace(made.settings, seed=k)) for k in range(3)
    ]
    return replace(made, tau=min(scores) - 0.02)


def test_a_consensus_is_gone_on_the_seeds_of_all_its_searches(model, calibration):
    found = localize_by_consensus(model, PROMPT, calibration, "gradient", 3)
    alone = [
        findnemo.localize(
            model,
            PROMPT,
            replace(calibration, settings=replace(calibration.settings, seed=k)),
            search="gradient",
        )
        for k in range(3)
    ]
    shares = frequency([a.neurons for a in alone if a.memorized])
    assert found.frequency == {
        f"{name}:{i}": round(share, 3) for (name, i), share in shares.items()
    }
    assert found.candidates == NeuronSet.of(shares)
    assert set(found.neurons) <= set(shares)
    assert found.score_before == alone[0].score_before
    assert found.evaluations >= sum(a.evaluations for a in alone)
    reached = []
    for k, one in enumerate(alone):
        probe = Probe(model, PROMPT, replace(calibration.settings, seed=k))
        after = ssim(probe.deltas(), probe.deltas(found.neurons))
        reached.append(float(after.max()))
        assert after.max() <= max(calibration.tau, one.score_after) + 1e-4
    assert found.score_after <= max(reached) + 1e-4
    assert found.reached == (found.score_after <= calibration.tau)


def test_one_search_is_what_it_was(model, calibration):
    one = findnemo.localize(model, PROMPT, calibration, search="gradient")
    assert one == localize_by_consensus(model, PROMPT, calibration, "gradient", 1)
    assert one.frequency == {}
    assert one.p == calibration.p_value(one.score_before)


def test_a_caption_that_is_not_memorized_has_no_consensus(model, calibration):
    found = localize_by_consensus(model, PROMPT, replace(calibration, tau=2.0), "gradient", 3)
    assert (found.memorized, len(found.neurons), found.evaluations) == (
        False,
        0,
        findnemo.localize(
            model, PROMPT, replace(calibration, tau=2.0), search="gradient"
        ).evaluations,
    )


def test_a_consensus_of_none_is_refused(model, calibration):
    with pytest.raises(InputError, match="consensus of 0 searches"):
        localize_by_consensus(model, PROMPT, calibration, "gradient", 0)
