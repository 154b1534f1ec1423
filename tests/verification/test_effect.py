"""The effect of an edit: fresh seeds, and images before and after."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _angles import IMAGES, MID, NEURONS, PROMPT, SETTINGS, by_angle, by_brightness, flat
from PIL import Image

import findnemo
from findnemo import verification
from findnemo.errors import EditError, NumericalError
from findnemo.metrics import Judges
from findnemo.metrics.copies import compare_images
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.scores import ssim
from findnemo.seeds import FRESH
from findnemo.settings import Settings
from findnemo.verification import Look, verify


def test_scores_are_those_of_seeds_that_no_search_has_seen(loud):
    result = verify(loud, PROMPT, NEURONS, SETTINGS, 0, IMAGES)
    fresh = range(FRESH, FRESH + 3)
    assert max(range(Settings().samples)) < min(fresh)
    before = findnemo.score(loud, PROMPT, settings=SETTINGS, samples=fresh)
    after = findnemo.score(loud, PROMPT, NEURONS, SETTINGS, fresh)
    assert result.values["score_before"] == round(before, 4)
    assert result.values["score_after"] == round(after, 4) != round(before, 4)
    assert (result.before, result.after, set(result.values)) == (
        [],
        [],
        {"score_before", "score_after", "replicating", "same_seed", "evaluations"},
    )


def test_same_seed_is_the_largest_similarity_of_a_seed_to_itself(loud):
    values = verify(loud, PROMPT, NEURONS, SETTINGS, 0, IMAGES).values
    before = differences(loud)
    with torch.no_grad():
        loud.value_layers[MID].weight[:20] = 0
    by_seed = ssim(before, differences(loud))
    assert values["same_seed"] == pytest.approx(float(by_seed.max()), abs=1e-4)
    assert by_seed.min() < by_seed.max() < 1


def test_seeds_that_do_not_replicate_say_nothing_of_the_memory(loud):
    """Algorithm 1's filter on fresh seeds, by hand: pairwise similarities of the untouched
    differences, then the largest of those kept.
    """
    before = differences(loud)
    pairs = {
        (i, j): float(ssim(before[i : i + 1], before[j : j + 1]))
        for i, j in ((0, 1), (0, 2), (1, 2))
    }
    best = [max(value for pair, value in pairs.items() if k in pair) for k in range(3)]
    tau = (min(best) + max(best)) / 2
    kept = [k for k in range(3) if best[k] >= tau]
    assert len(kept) == 2
    values = verify(loud, PROMPT, NEURONS, SETTINGS, 0, IMAGES, look=Look(tau=tau)).values
    with torch.no_grad():
        loud.value_layers[MID].weight[:20] = 0
    by_seed = ssim(before, differences(loud))
    assert values["replicating"] == 2
    assert values["same_seed"] == pytest.approx(max(float(by_seed[k]) for k in kept), abs=1e-4)


def test_where_no_fresh_seed_replicates_there_is_no_similarity_to_tell(loud):
    values = verify(loud, PROMPT, NEURONS, SETTINGS, 0, IMAGES, look=Look(tau=1.01)).values
    assert values["replicating"] == 0
    assert "same_seed" not in values


@torch.no_grad()
def differences(model) -> torch.Tensor:
    """The noise differences of the fresh seeds without `Probe`, each scaled to [0, 1]."""
    latents = model.noise(PROMPT, range(FRESH, FRESH + 3))
    noise = model.predict_noise(latents, model.timesteps(50)[0], model.encode([PROMPT] * 3))
    return torch.stack([(d - d.min()) / (d.max() - d.min()) for d in noise - latents])


def test_images_before_and_after_differ_by_the_edit_only(loud):
    result = verify(loud, PROMPT, NEURONS, SETTINGS, 2, IMAGES)
    samples = [FRESH, FRESH + 1]
    assert flat(result.before) == flat(findnemo.generate(loud, PROMPT, samples, IMAGES))
    with findnemo.deactivate(loud, NEURONS):
        assert flat(result.after) == flat(findnemo.generate(loud, PROMPT, samples, IMAGES))
    assert flat(result.before) != flat(result.after)


def test_without_neurons_nothing_changes(loud):
    result = verify(loud, PROMPT, EMPTY, SETTINGS, 2, IMAGES)
    assert flat(result.before) == flat(result.after)
    assert result.values["score_before"] == result.values["score_after"]
    assert result.values["same_seed"] == 1


def test_judges_see_the_images_and_the_training_image(loud):
    original = Image.new("RGB", (32, 32), "red")
    judges = Judges(by_angle, by_brightness)
    result = verify(loud, PROMPT, NEURONS, SETTINGS, 2, IMAGES, replace(judges, original=original))
    want = compare_images(PROMPT, result.before, result.after, replace(judges, original=original))
    assert {k: round(v, 4) for k, v in want.items()}.items() <= result.values.items()
    assert len(want) == 9


@pytest.mark.parametrize("problem", [NumericalError("NaN"), KeyboardInterrupt()])
def test_the_model_is_as_it_was_whatever_happens(loud, monkeypatch, problem):
    def fails(*arguments):
        raise problem

    monkeypatch.setattr("findnemo.verification.effect.pictures", fails)
    with pytest.raises(type(problem)):
        verify(loud, PROMPT, NEURONS, SETTINGS, 1, IMAGES)
    with pytest.raises(EditError, match="no neuron 99"):
        verify(loud, PROMPT, NeuronSet({MID: [99]}), SETTINGS, 0, IMAGES)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in loud.denoiser.modules()
    )


def test_nan_is_an_error_that_says_so(loud):
    with torch.no_grad():
        loud.value_layers[MID].weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="NaN"):
        verify(loud, PROMPT, NEURONS, SETTINGS, 0, IMAGES)


# Noise differences that are given


def test_where_no_seed_replicates_a_known_memory_is_told_of_all_seeds():
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(3, 4, 16, 16, generator=generator)
    after = before.clone()
    after[1:] = torch.rand(2, 4, 16, 16, generator=generator)  # one seed is as it was
    assert verification.replicating(before, SETTINGS, tau=0.9) == []
    assert verification.same_seed(before, after, SETTINGS, tau=0.9) is None
    told = verification.same_seed_of_memory(before, after, SETTINGS, tau=0.9)
    assert told == pytest.approx(float(ssim(before, after).max())) == pytest.approx(1)


def test_a_seed_that_is_like_no_other_is_left_out():
    """Two equal noise differences replicate; the third, which the edit left alone, says nothing."""
    generator = torch.Generator().manual_seed(1)
    one, other, changed = torch.rand(3, 4, 16, 16, generator=generator)
    before = torch.stack([one, other, one])
    after = torch.stack([changed, other, changed])
    assert verification.replicating(before, SETTINGS, tau=0.9) == [0, 2]
    assert verification.replicating(before, SETTINGS, tau=None) == [0, 1, 2]
    assert verification.same_seed(before, after, SETTINGS, tau=0.9) == pytest.approx(
        float(ssim(one[None], changed[None]))
    )
    assert verification.same_seed(before, after, SETTINGS) == pytest.approx(1)
