"""Verification: fresh seeds, images before and after, and the judges' figures computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import findnemo
from findnemo import verification
from findnemo.errors import EditError, NumericalError
from findnemo.images import ImageSettings, finished
from findnemo.metrics import Judges
from findnemo.metrics.copies import compare_images, copying
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Denoising
from findnemo.scores import ssim
from findnemo.seeds import FRESH
from findnemo.settings import Settings
from findnemo.verification import Look, quality, verify

SETTINGS = Settings(samples=3)
IMAGES = ImageSettings(steps=1)
MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
NEURONS = NeuronSet({MID: range(20)})
PROMPT = "a red fox"
COPIES = {"copies_before", "copies_after"}


@pytest.fixture
def loud(tiny):
    """A model on which switching neurons off can be seen."""
    with torch.no_grad():
        tiny.value_layers[MID].weight *= 100
        tiny.denoiser.conv_out.weight *= 10
    return tiny


def picture(degrees: float) -> Image.Image:
    return Image.new("L", (4, 4), round(degrees)).convert("RGB")


def by_angle(images) -> torch.Tensor:
    """A descriptor whose cosines can be done in the head: a grey value is an angle in degrees."""
    angles = torch.tensor([np.asarray(image).mean() for image in images]).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def by_brightness(images, captions) -> torch.Tensor:
    return torch.tensor(
        [len(c) + np.asarray(i).mean() / 100 for i, c in zip(images, captions, strict=True)]
    )


def cos(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def flat(images) -> list[bytes]:
    return [image.tobytes() for image in images]


# Scores on fresh seeds


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


# Finished images


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


# The judges' figures


def test_figures_are_medians_over_the_seeds():
    before, after = [picture(d) for d in (0, 10, 30)], [picture(d) for d in (60, 20, 90)]
    values = compare_images("abc", before, after, Judges(by_angle, by_brightness, picture(40)))
    assert values == pytest.approx(
        {
            "sscd_gen": cos(60),  # 60, 10, 60 degrees apart
            "d_sscd_before": cos(20),  # 10, 20, 30
            "d_sscd_after": cos(40),  # 30, 40, 70
            "sscd_orig_before": cos(30),  # 40, 30, 10
            "sscd_orig_after": cos(20),  # 20, 20, 50
            "a_clip_before": 3.10,
            "a_clip_after": 3.60,
            "copies_before": 1.0,  # 10, 10, 20 degrees to the closest other seed
            "copies_after": 2 / 3,  # 30, 10, 80; a copy is one within 45.6
        },
        abs=1e-5,
    )


@pytest.mark.parametrize(
    ("judges", "count", "names"),
    [
        (Judges(), 1, set()),
        (Judges(), 2, COPIES),
        (Judges(alignment=by_brightness), 2, {"a_clip_before", "a_clip_after"} | COPIES),
        (Judges(descriptor=by_angle), 2, {"sscd_gen", "d_sscd_before", "d_sscd_after"} | COPIES),
        (Judges(descriptor=by_angle), 1, {"sscd_gen"}),
    ],
)
def test_only_what_can_be_judged_is_judged(judges, count, names):
    assert set(compare_images("abc", [picture(0)] * count, [picture(9)] * count, judges)) == names


# Quality


def test_quality_compares_one_fresh_image_a_prompt(loud, monkeypatch):
    asked = []

    def generate(model, rows, settings):
        off = bool(model.value_layers[MID]._forward_hooks)
        asked.append((rows, off))
        return [picture({"a": 10, "b": 20, "c": 90}[prompt] * (1 + off)) for prompt, _ in rows]

    monkeypatch.setattr("findnemo.verification.cost.generate_many", generate)
    result = quality(loud, ["a", "b", "c"], NEURONS, IMAGES, Judges(by_angle))
    assert asked == [([(prompt, FRESH) for prompt in "abc"], off) for off in (False, True)]
    assert result == {
        "prompts": 3,
        "failed": 0,
        "neurons": 20,
        "pixel_change": round(20 / 255, 4),
        "sscd_gen": round(cos(20), 4),
        "each": [
            {"pixel_change": round(gap / 255, 4), "sscd_gen": round(cos(gap), 4)}
            for gap in (10, 20, 90)
        ],
    }


def test_quality_leaves_out_and_counts_prompts_that_fail(loud, monkeypatch):
    def generate(model, rows, settings):
        if any(prompt == "bad" for prompt, _ in rows):
            raise NumericalError("NaN")
        return [picture(10) for _ in rows]

    monkeypatch.setattr("findnemo.verification.cost.generate_many", generate)
    want = {
        "prompts": 1,
        "failed": 1,
        "neurons": 20,
        "pixel_change": 0.0,
        "each": [{"pixel_change": 0.0}],
    }
    assert quality(loud, ["bad", "good"], NEURONS, IMAGES) == want
    assert quality(loud, ["bad"], NEURONS, IMAGES) == {"prompts": 0, "failed": 1, "neurons": 20}


def test_a_prompt_has_the_figures_that_it_has_by_itself(loud):
    prompts = ["a red fox", "a grey owl", "the sea"]
    few = NeuronSet({MID: [0, 1]})
    together = quality(loud, prompts, few, IMAGES, Judges(by_angle), draws=1)["each"]
    alone = [quality(loud, [p], few, IMAGES, Judges(by_angle), draws=1)["each"][0] for p in prompts]
    alone.sort(key=lambda row: list(row.values()))
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=2e-4)


def test_quality_of_nothing(loud):
    assert quality(loud, [], NEURONS, IMAGES) == {"prompts": 0, "failed": 0, "neurons": 20}
    same = quality(loud, [PROMPT], EMPTY, IMAGES)
    assert same == {
        "prompts": 1,
        "failed": 0,
        "neurons": 0,
        "pixel_change": 0.0,
        "each": [{"pixel_change": 0.0}],
    }
    assert quality(loud, [PROMPT], NEURONS, IMAGES)["pixel_change"] > 0


def test_quality_against_random_neurons_takes_the_draws_in_turn(loud, monkeypatch):
    asked = []

    def generate(model, rows, settings):
        hooks = [
            (name, h) for name, m in model.value_layers.items() for h in m._forward_hooks.values()
        ]
        off = [(name, i) for name, h in hooks for i in (h.scale == 0).nonzero().flatten().tolist()]
        asked.append((NeuronSet.of(off), "".join(prompt for prompt, _ in rows)))
        grey = {0: 10, 2: 30}.get(len(off), 99) if NeuronSet.of(off) == few or not off else 14
        return [picture(grey) for _ in rows]

    few = NeuronSet({MID: [0, 1]})
    monkeypatch.setattr("findnemo.verification.cost.generate_many", generate)
    result = quality(loud, ["a", "b", "c"], few, IMAGES, Judges(by_angle), draws=2)
    first, second = verification.random_sets(loud, few, draws=2)
    assert asked == [(EMPTY, "abc"), (few, "abc"), (first, "ac"), (second, "b")]
    for other in (first, second):
        assert (len(other), len(other & few), list(other.layers)) == (2, 0, [MID])
    assert first != second
    figures = {"pixel_change": round(20 / 255, 4), "sscd_gen": round(cos(20), 4)}
    random = {"random_pixel_change": round(4 / 255, 4), "random_sscd_gen": round(cos(4), 4)}
    assert result == {
        "prompts": 3,
        "failed": 0,
        "neurons": 2,
        **figures,
        **random,
        "each": [figures | random] * 3,
    }


def test_where_too_few_others_are_left_there_are_no_random_neurons(loud):
    result = quality(loud, [PROMPT], NEURONS, IMAGES, draws=5)  # 20 of 32: not 20 others
    assert "random_pixel_change" not in result
    assert result == quality(loud, [PROMPT], NEURONS, IMAGES)


@pytest.mark.slow
def test_quality_in_fine_steps_is_that_of_pictures_made_so(loud):
    """Against each picture by itself, with the neurons off by a hook instead of a mask."""
    settings = ImageSettings(steps=9, guidance=2.0)
    few = NeuronSet({MID: [0, 1]})
    prompts = ["a red fox", "a grey owl", "the sea"]
    result = quality(loud, prompts, few, settings, draws=2, thorough=False)
    draws = verification.random_sets(loud, few, draws=2)

    def made(prompt, off):
        with findnemo.deactivate(loud, off):
            path = Denoising(loud, prompt, 1, 2.0, first=FRESH).run([0], 6, whole=9)
        return np.asarray(finished(loud, path.image.to(loud.dtype))[0], np.float64)

    rows = []
    for prompt, draw in zip(prompts, (draws[0], draws[1], draws[0]), strict=True):
        before, *others = (made(prompt, off) for off in (EMPTY, few, draw))
        rows.append([float(np.abs(before - other).mean() / 255) for other in others])
    assert (result["steps"], result["prompts"]) == (6, 3)
    told = [[row["pixel_change"], row["random_pixel_change"]] for row in result["each"]]
    assert np.asarray(told) == pytest.approx(np.asarray(sorted(rows)), abs=2e-4)
    assert result["pixel_change"] > 0
    # no fewer steps than fine ones: nothing to save
    quick = quality(loud, prompts[:1], few, IMAGES, thorough=False)
    assert quick == quality(loud, prompts[:1], few, IMAGES)


# Copies of what other seeds gave


def test_copying_is_the_similarity_to_the_closest_image_of_another_seed():
    before, after = [picture(d) for d in (0, 10, 40)], [picture(d) for d in (0, 90, 41)]
    assert copying(before, before, by_angle).tolist() == pytest.approx([cos(10), cos(10), cos(30)])
    assert copying(after, before, by_angle).tolist() == pytest.approx(
        [cos(10), cos(50), cos(31)]
    )  # its own 0 does not count
    assert copying(before[:2], before[:2], by_angle).tolist() == pytest.approx([cos(10), cos(10)])


def test_without_a_descriptor_it_is_the_correlation_of_the_pixels():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(4)]
    other = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(4)]
    flat_ = [np.asarray(i, np.float64).ravel() for i in (*images, *other)]
    table = np.corrcoef(flat_)[:4, 4:]
    np.fill_diagonal(table, -1)
    assert copying(images, other).tolist() == pytest.approx(table.max(1).tolist(), abs=1e-5)
    dark = [Image.fromarray(np.asarray(i) // 2) for i in images]
    assert copying([dark[1], dark[0]], images[:2]).tolist() == pytest.approx([1, 1], abs=1e-3)
