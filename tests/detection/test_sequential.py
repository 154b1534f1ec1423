"""Detection spends no more seeds than it takes, and decides as if it had spent them all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import findnemo
from findnemo import Calibration, Settings, calibrate
from findnemo.detection import DETECTORS, detect, detect_many
from findnemo.errors import InputError, NumericalError
from findnemo.images import ImageSettings
from findnemo.localization.replication import Replication
from findnemo.models import Model
from findnemo.passes.deltas import Probe, group_size
from findnemo.scores import SIMILARITIES, pairwise
from findnemo.settings import settings_for
from findnemo.verification import replicating

CAPTIONS = ["a cat", "two dogs in the snow", "", "@@@@", "QQQQ"]
SETTINGS = Settings(samples=6)


@pytest.fixture(scope="module")
def calibration(model) -> Calibration:
    return calibrate(model, CAPTIONS, settings=SETTINGS)


@pytest.mark.slow
def test_the_decision_is_that_of_all_seeds_whatever_the_threshold(model, calibration):
    whole = {c: findnemo.score(model, c, settings=SETTINGS) for c in CAPTIONS}
    for tau in [*(v + d for v in whole.values() for d in (-1e-4, 1e-4))]:
        for found in detect_many(model, CAPTIONS, replace(calibration, tau=tau)):
            caption = found.prompt
            value = whole[found.prompt]
            assert found.memorized == (value >= tau)
            assert found.evaluations == found.samples
            assert found.score == pytest.approx(
                findnemo.score(model, caption, settings=SETTINGS, samples=range(found.samples)),
                abs=1e-5,
            )
            if not found.memorized:
                assert found.samples == 6
                assert found.score == pytest.approx(value, abs=1e-5)


def test_a_memorized_caption_is_known_after_the_first_seeds_that_show_it(model, calibration):
    for caption, row in zip(CAPTIONS, calibration.trajectories.tolist(), strict=True):
        tau = row[-1] - 1e-4
        seeds = next(n for n in (2, 4, 6) if row[n - 2] >= tau)
        assert detect(model, caption, replace(calibration, tau=tau)).samples == seeds


@pytest.mark.slow
def test_where_the_mean_of_pairs_counts_few_seeds_settle_nothing(model):
    settings = settings_for("findnemo")
    own = calibrate(model, CAPTIONS, "findnemo")
    assert own.settings == settings == Settings.from_json(settings.to_json())
    for caption in CAPTIONS:
        deltas = Probe(model, caption, settings).deltas()
        pairs = [
            float(SIMILARITIES["ssim"](deltas[i : i + 1], deltas[j : j + 1]))
            for i in range(4)
            for j in range(i)
        ]
        for tau in (min(pairs), sum(pairs) / 6 - 1e-4, sum(pairs) / 6 + 1e-4, max(pairs)):
            found = detect(model, caption, replace(own, tau=tau))
            assert (found.memorized, found.samples) == (sum(pairs) / 6 >= tau, 4)
            assert found.score == pytest.approx(sum(pairs) / 6, abs=1e-5)


@pytest.fixture(scope="module")
def agreeing(model) -> Calibration:
    """By the mean of pairs, with as many hold-out captions as bounds take, all of them steady."""
    own = calibrate(model, CAPTIONS, "findnemo")
    return replace(own, trajectories=torch.linspace(0, 0.9, 600)[:, None].repeat(1, 3))


def test_a_caption_ends_under_the_first_bound_and_a_memorized_one_has_all_seeds(model, agreeing):
    whole = {d.prompt: d for d in detect_many(model, CAPTIONS, agreeing, all_seeds=True)}
    ended = set()
    ways = {
        c: findnemo.scores.trajectory(Probe(model, c, agreeing.settings).deltas(), pairs="mean")
        for c in CAPTIONS
    }
    for tau in (0.02, 0.03, 0.15, 0.31, 0.5):  # scores lie from 0 to .05
        near = replace(agreeing, tau=tau)
        bounds = near.early_bounds()
        for found in detect_many(model, CAPTIONS, near):
            full = whole[found.prompt]
            way = dict(zip((2, 3, 4), ways[found.prompt].tolist(), strict=True))
            wanted = next((k for k in (2, 3) if way[k] < bounds[k] - 1e-5), 4)
            ended.add(found.samples)
            assert (found.samples, found.evaluations) == (wanted, wanted)
            assert found.score == pytest.approx(way[wanted], abs=1e-5)
            assert found.memorized == (wanted == 4 and full.score >= tau)
            if wanted == 4:
                assert found.score == pytest.approx(full.score, abs=1e-6)
                assert found.p == near.p_value(found.score)
            else:
                assert found.p >= near.p_value(full.score)
    assert ended == {2, 3, 4}


def test_without_a_share_that_may_be_lost_nothing_ends_early(model, agreeing):
    high = replace(agreeing, tau=0.999)
    for options in ({"miss": None}, {"all_seeds": True}):
        assert {d.samples for d in detect_many(model, CAPTIONS, high, **options)} == {4}
    with pytest.raises(InputError, match="--miss 1"):
        detect_many(model, CAPTIONS, high, miss=1.0)


def test_nobody_else_in_a_group_changes_where_a_caption_ends(model, agreeing):
    near = replace(agreeing, tau=0.15)
    together = detect_many(model, CAPTIONS, near)
    for one, many in zip([detect(model, c, near) for c in CAPTIONS], together, strict=True):
        assert (one.samples, one.memorized) == (many.samples, many.memorized)
        assert one.score == pytest.approx(many.score, abs=1e-5)


@pytest.mark.slow
def test_search_and_verification_say_memorized_where_detection_does(model):
    own = calibrate(model, CAPTIONS, "findnemo")
    for caption in CAPTIONS[:1]:
        probe = Probe(model, caption, own.settings)
        table = pairwise(probe.deltas())
        each = [sum(float(table[i, j]) for j in range(4) if j != i) / 3 for i in range(4)]
        score = sum(each) / 4
        assert min(each) < score < max(each)
        for tau in (
            min(each) + 1e-4,
            score - 1e-4,
            score + 1e-4,
            max(each) - 1e-4,
            max(each) + 1e-4,
        ):
            memorized = detect(model, caption, replace(own, tau=tau)).memorized
            assert memorized == (score >= tau)
            kept = [i for i in range(4) if each[i] >= tau] if memorized else []
            assert (
                sorted(Replication(probe, tau).kept)
                == kept
                == replicating(probe.deltas(), own.settings, tau)
            )
            assert (
                findnemo.localize(model, caption, replace(own, tau=tau), "gradient").memorized
                == memorized
            )


def test_the_listing_asks_for_the_papers_score(model):
    with pytest.raises(InputError, match="calibrate with variant 'paper'"):
        findnemo.localize(model, CAPTIONS[0], calibrate(model, CAPTIONS, "findnemo"), "listing")


def test_the_detector_agreement_is_the_score_that_calibrations_have(model):
    own = calibrate(model, CAPTIONS, "findnemo")
    for caption in CAPTIONS[:2]:
        found = DETECTORS["agreement"](model, caption, ImageSettings())
        assert found.value == pytest.approx(detect(model, caption, own).score, abs=1e-5)


def test_the_papers_settings_are_written_as_they_were_before_there_were_others():
    assert "pairs" not in Settings().to_json()
    assert Settings.from_json(Settings().to_json()) == Settings()
    assert "pairs 'mean' instead of 'largest'" in settings_for("findnemo").differences(Settings())


@pytest.mark.slow
def test_many_captions_at_once_are_each_by_itself(model, calibration):
    for tau in sorted(calibration.scores.tolist())[1::2]:
        near = replace(calibration, tau=tau + 1e-4)
        single = [detect(model, c, near) for c in CAPTIONS]
        for one, many in zip(single, detect_many(model, CAPTIONS, near), strict=True):
            assert replace(many, score=one.score, p=one.p) == one
            assert many.p == near.p_value(many.score)
            assert many.score == pytest.approx(one.score, abs=1e-5)


def test_many_captions_share_passes(model, calibration):
    passes = []
    handle = model.denoiser.register_forward_pre_hook(
        lambda module, args: passes.append(len(args[0]))
    )
    found = detect_many(model, CAPTIONS, replace(calibration, tau=2.0))
    handle.remove()
    assert passes == [10, 10, 10]  # five captions by two seeds, two more, the last two
    assert sum(d.evaluations for d in found) == 30


def test_guidance_costs_two_evaluations_a_latent(model, calibration):
    guided = replace(calibration, tau=2.0, settings=replace(SETTINGS, guidance=3.0))
    assert [d.evaluations for d in detect_many(model, CAPTIONS[:2], guided)] == [12, 12]


def test_a_caption_with_nan_has_the_error_for_an_answer_and_the_others_theirs(
    model, calibration, monkeypatch
):
    alone = detect_many(model, CAPTIONS, calibration)
    noise = Model.noise
    monkeypatch.setattr(
        Model,
        "noise",
        lambda self, prompt, *rest: (
            noise(self, prompt, *rest) * (torch.nan if prompt == "@@@@" else 1)
        ),
    )
    answers = detect_many(model, CAPTIONS, calibration)
    assert [isinstance(a, NumericalError) for a in answers] == [c == "@@@@" for c in CAPTIONS]
    for one, other in zip(alone, answers, strict=True):
        if one.prompt != "@@@@":
            assert replace(other, score=one.score, p=one.p) == one
            assert other.p == calibration.p_value(other.score)
            assert other.score == pytest.approx(one.score, abs=1e-5)
    with pytest.raises(NumericalError, match="NaN"):
        detect(model, "@@@@", calibration)


@pytest.mark.parametrize(("size", "captions"), [(16, 32), (24, 32), (64, 4), (128, 1), (256, 1)])
def test_fewer_captions_share_passes_where_latents_are_large(model, monkeypatch, size, captions):
    monkeypatch.setattr(type(model), "latent_shape", (4, size, size))
    assert group_size(model) == captions


# p-values -----------------------------------------------------------------------------------------


def test_every_detection_has_the_p_value_of_its_score(model, calibration):
    other = replace(
        calibration, trajectories=torch.linspace(-1, 1, 40)[:, None].expand(40, 5), tau=2.0
    )
    for found in detect_many(model, CAPTIONS, other):
        above = sum(float(s) >= found.score for s in torch.linspace(-1, 1, 40))
        assert found.p == pytest.approx((1 + above) / 41)


def test_imported_statistics_give_no_p_value(model, calibration):
    assert detect(model, "a cat", replace(calibration, trajectories=torch.empty(0, 5))).p is None


def test_with_all_seeds_a_memorized_caption_has_the_p_value_of_its_whole_score(model, calibration):
    low = replace(calibration, tau=-1.0)
    early, whole = (detect_many(model, CAPTIONS, low, all_seeds=wanted) for wanted in (False, True))
    for caption, few, all_ in zip(CAPTIONS, early, whole, strict=True):
        assert (few.samples, all_.samples, all_.memorized) == (2, 6, True)
        assert all_.score == pytest.approx(
            findnemo.score(model, caption, settings=SETTINGS), abs=1e-5
        )
        assert few.p >= all_.p  # two seeds say less than six, never more
