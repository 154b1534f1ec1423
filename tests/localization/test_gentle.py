"""The gentlest set that removes a memory: by hand, against a computation of its own, and on a
memory that two neurons can break.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from _planting import CAPTION, HOLDOUT, SETTINGS, TAU, calibration, planted, planted_twice
from _tiny import tiny_pipeline
from hypothesis import given
from hypothesis import strategies as st

import findnemo
from findnemo import NeuronSet
from findnemo.errors import InputError, NumericalError
from findnemo.localization import Bystanders, Found, gentlest
from findnemo.neurons import EMPTY
from findnemo.passes import spending
from findnemo.scores import ssim

MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"


# The choice, by hand


def sets(*names: str) -> list[NeuronSet]:
    return [NeuronSet.of([("a", int(i)) for i in name]) for name in names]


def choose(impacts: dict[str, float], most: float):
    """`impacts`: sufficient set -> impact, in the order in which a search gives them."""
    known = dict(zip(sets(*impacts), impacts.values(), strict=True))
    asked: list[NeuronSet] = []

    def impact(neurons: NeuronSet) -> float:
        asked.append(neurons)
        return known[neurons]

    chosen = gentlest((Found(s, EMPTY) for s in known), most, impact)
    assert len(asked) == chosen.tried == len(set(asked))
    return "".join(str(i) for _, i in chosen.found.neurons), chosen.impact, chosen.tried


def test_a_set_that_is_gentle_enough_is_kept_and_nothing_else_is_tried():
    assert choose({"3": 0.2, "2": 0.0}, 0.2) == ("3", 0.2, 1)


def test_others_are_tried_until_one_is_gentle_enough():
    assert choose({"3": 0.5, "2": 0.4, "1": 0.1, "0": 0.0}, 0.1) == ("1", 0.1, 3)


def test_the_gentlest_is_kept_where_none_is_gentle_enough():
    assert choose({"3": 0.5, "2": 0.3, "1": 0.4}, 0.1) == ("2", 0.3, 3)
    # nothing else removes the memory: it goes all the same
    assert choose({"3": 0.5}, 0.1) == ("3", 0.5, 1)


def test_a_set_with_which_the_memory_is_gone_goes_before_a_gentler_one_with_which_it_is_not():
    gone, gentle = (Found(s, EMPTY, gone=s == sets("3")[0]) for s in sets("3", "2"))
    chosen = gentlest([gone, gentle], 0.1, lambda neurons: 0.2 if neurons == gone.neurons else 0.0)
    assert (chosen.found, chosen.impact, chosen.tried) == (gone, 0.2, 2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_it_is_the_smallest_of_what_was_tried(impacts, most):
    name, impact, tried = choose({str(9 - k): x for k, x in enumerate(impacts)}, most)
    assert impact == min(impacts[:tried]) == impacts[9 - int(name)]
    assert impact <= most or tried == len(impacts)


# Impact


@pytest.fixture(scope="module")
def loud():
    model = findnemo.load(tiny_pipeline())
    with torch.no_grad():
        model.value_layers[MID].weight *= 100
        model.denoiser.conv_out.weight *= 10
    return model


@torch.no_grad()
def difference(model, prompt: str) -> torch.Tensor:
    """The noise difference of sample 0 without `Probe`, scaled to [0, 1]."""
    latents = model.noise(prompt, [0])
    delta = model.predict_noise(latents, model.timesteps(50)[0], model.encode([prompt])) - latents
    return (delta - delta.min()) / (delta.max() - delta.min())


@pytest.mark.slow
def test_impact_is_how_unlike_themselves_the_captions_become(loud):
    with spending() as spent:
        bystanders = Bystanders(loud, HOLDOUT)
    assert spent.evaluations == 0  # untouched, once for all searches
    off = [NeuronSet({MID: range(20)}), NeuronSet({MID: [3]})]
    before = [difference(loud, p) for p in HOLDOUT]
    after = [[difference(findnemo.load(findnemo.prune(loud, s)), p) for p in HOLDOUT] for s in off]
    want = [[1 - float(ssim(b, a)) for b, a in zip(before, row, strict=True)] for row in after]
    with spending() as spent:
        found = bystanders.impacts(off)
    assert found == pytest.approx([sum(row) / len(row) for row in want], abs=1e-5)
    assert spent.evaluations == 2 * len(HOLDOUT)
    assert bystanders.impacts(off[:1], HOLDOUT[2])[0] == pytest.approx(
        sum(want[0][k] for k in (0, 1, 3, 4, 5)) / 5, abs=1e-5
    )
    assert bystanders.impacts([EMPTY])[0] == pytest.approx(0, abs=1e-6)
    assert sum(want[0]) > 0.01


def test_the_heaviest_neuron_is_the_one_of_the_largest_impact(loud):
    bystanders = Bystanders(loud, HOLDOUT)
    singles = [("mid", k) for k in range(4)]
    four = {k: bystanders.changes([NeuronSet({MID: [k]})], most=4).mean() for _, k in singles}
    assert bystanders.heaviest(NeuronSet({MID: range(4)})) == (MID, max(four, key=four.__getitem__))
    assert bystanders.heaviest(NeuronSet({MID: [7]})) == (MID, 7)


def test_captions_that_cannot_tell_are_refused(loud, tiny):
    with pytest.raises(InputError, match="no unrelated captions"):
        Bystanders(loud, [])
    with pytest.raises(InputError, match="only unrelated caption"):
        Bystanders(loud, ["a"]).impacts([EMPTY], "a")
    with torch.no_grad():
        tiny.value_layers[MID].weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="unrelated caption 'blue sky'"):
        Bystanders(tiny, HOLDOUT)


@pytest.mark.parametrize("impact", [-0.1, 2.1, float("nan")])
def test_what_is_no_impact_is_refused(loud, impact):
    with pytest.raises(InputError, match="number from 0 to 2"):
        findnemo.localize(
            loud, "a", calibration(loud), max_impact=impact, unrelated=HOLDOUT, search="gradient"
        )


# A memory that either of two neurons breaks


@pytest.fixture(scope="module")
def twice():
    return planted_twice(tiny_pipeline())


def test_either_neuron_removes_the_memory_and_only_one_of_them_is_used_by_others(twice):
    model, own, common = twice
    bystanders = Bystanders(model, HOLDOUT)
    mild, harsh = bystanders.impacts([own, common])
    assert mild < 0.001 < 0.9 < harsh
    assert findnemo.score(model, CAPTION, settings=SETTINGS) > 0.99


@pytest.mark.parametrize("search", ["gradient", "listing"])
def test_the_gentle_one_is_chosen_exactly(twice, search):
    model, own, common = twice
    made = calibration(model, unusual=common)
    usual = findnemo.localize(model, CAPTION, made, search)
    found = findnemo.localize(model, CAPTION, made, search, 0.05, HOLDOUT)
    assert (usual.neurons, usual.impact, usual.reached) == (common, None, True)
    assert found.neurons == own
    assert found.impact < 0.001
    assert found.reached
    assert (found.max_impact, found.tried) == (0.05, 2)
    assert found.evaluations >= usual.evaluations + 2 * len(HOLDOUT)


def test_a_set_that_is_gentle_at_once_costs_one_evaluation_a_caption(twice):
    model, own, _ = twice
    made = calibration(model, unusual=own)
    usual = findnemo.localize(model, CAPTION, made, search="gradient")
    found = findnemo.localize(model, CAPTION, made, "gradient", 0.05, HOLDOUT)
    assert (found.neurons, found.tried) == (usual.neurons, 1) == (own, 1)
    assert found.evaluations == usual.evaluations + len(HOLDOUT)


@pytest.mark.slow
def test_the_memory_goes_first_whatever_it_costs(twice):
    model, _, common = twice
    ruled = Bystanders(
        model, [*HOLDOUT, CAPTION]
    )  # the caption itself does not count among the others
    found = findnemo.localize(
        model,
        CAPTION,
        calibration(model, unusual=common),
        max_impact=0.0,
        unrelated=ruled,
        search="gradient",
    )
    assert found.reached
    assert len(found.neurons)
    assert found.impact == pytest.approx(ruled.impacts([found.neurons], CAPTION)[0], abs=1e-6)
    assert found.impact < 0.001
    single, memory = planted(tiny_pipeline())
    only = findnemo.localize(
        single,
        CAPTION,
        calibration(single, unusual=memory),
        max_impact=0.0,
        unrelated=HOLDOUT,
        search="gradient",
    )
    assert only.reached
    for size in range(len(only.neurons)):
        for rest in combinations(only.neurons, size):  # what was kept is needed
            probe = findnemo.passes.deltas.Probe(single, CAPTION, SETTINGS)
            assert ssim(probe.deltas(), probe.deltas(NeuronSet.of(rest))).max() > TAU


def test_out_of_reach_stays_out_of_reach(twice):
    model, _, common = twice
    usual = findnemo.localize(
        model, CAPTION, calibration(model, unusual=common, tau=-0.9), search="gradient"
    )
    found = findnemo.localize(
        model,
        CAPTION,
        calibration(model, unusual=common, tau=-0.9),
        max_impact=0.0,
        unrelated=HOLDOUT,
        search="gradient",
    )
    assert not usual.reached
    assert not found.reached
    assert (found.neurons, found.tried) == (usual.neurons, 1)
