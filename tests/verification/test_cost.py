"""What an edit costs other captions: one fresh image of each, and random neurons beside it."""

from __future__ import annotations

import numpy as np
import pytest
from _angles import IMAGES, MID, NEURONS, PROMPT, by_angle, by_brightness, cos, picture

import findnemo
from findnemo import verification
from findnemo.errors import InputError, NumericalError
from findnemo.images import ImageSettings, decoded_pictures
from findnemo.metrics import Judges
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Denoising
from findnemo.seeds import FRESH
from findnemo.verification import quality


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
        return np.asarray(decoded_pictures(loud, path.image.to(loud.dtype))[0], np.float64)

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


def test_changes_are_those_of_each_image_by_itself():
    judges = Judges(by_angle, by_brightness)
    before, after = (
        verification.Pictures([picture(d) for d in degrees], ["a", "bcd"], judges)
        for degrees in ((10, 20), (10, 80))
    )
    made = {name: values.tolist() for name, values in verification.changes(before, after).items()}
    assert made == {
        "pixel_change": pytest.approx([0, 60 / 255]),
        "sscd_gen": pytest.approx([1, cos(60)]),
        "a_clip_before": pytest.approx([1.1, 3.2]),
        "a_clip_after": pytest.approx([1.1, 3.8]),
    }
    plain = verification.Pictures(before.images, before.captions, Judges())
    assert set(verification.changes(plain, plain)) == {"pixel_change"}


def test_sets_are_compared_by_the_judges_there_are_and_by_two_images_at_least():
    assert verification.distances(Judges()) == []
    assert verification.distances(Judges(by_angle)) == ["fid", "kid"]
    assert verification.distances(Judges(by_angle, by_brightness)) == ["fid", "kid", "clip_fid"]
    shown = [picture(degrees) for degrees in (10, 30, 80)]
    one = verification.Pictures(shown, "abc", Judges(by_angle))
    other = verification.Pictures(shown[::-1], "abc", Judges(by_angle))
    assert verification.distance("fid", one, other) == pytest.approx(0, abs=1e-3)
    apart = verification.distance("fid", one, other, slice(2))  # 10 and 30 degrees, 80 and 30
    assert apart > 0.05
    for name in ("fid", "kid"):
        with pytest.raises(InputError):
            verification.distance(name, one, other, slice(1))
