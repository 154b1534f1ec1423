"""One pass over the hold-out prompts: what it computes, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from _holdout import LIGHT, PROMPTS

import findnemo
from findnemo import activations, calibrate
from findnemo.calibration import tau_interval, threshold
from findnemo.errors import InputError, NumericalError


def test_streaming_equals_a_naive_computation(model, calibration):
    rows = [activations(model, prompt) for prompt in PROMPTS]
    for name in model.value_layers:
        table = torch.stack([row[name] for row in rows])
        torch.testing.assert_close(calibration.mean[name], table.mean(0))
        torch.testing.assert_close(calibration.std[name], table.std(0), atol=1e-7, rtol=1e-4)
    scores = torch.tensor([findnemo.score(model, prompt, settings=LIGHT) for prompt in PROMPTS])
    torch.testing.assert_close(calibration.scores, scores)
    assert calibration.tau == pytest.approx(float(scores.mean() + scores.std()), abs=1e-6)
    assert calibration.count == len(PROMPTS)
    assert calibration.model == model.fingerprint


@pytest.mark.parametrize("fpr", [None, 0.6])
@pytest.mark.parametrize("prompts", [[], ["a cat"]])
def test_fewer_than_two_prompts_are_refused(model, prompts, fpr):
    with pytest.raises(InputError, match=f"at least two hold-out prompts, not {len(prompts)}"):
        calibrate(model, prompts, settings=LIGHT, fpr=fpr)


def test_a_calibration_for_a_rate_keeps_it(model, calibration):
    made = calibrate(model, iter(PROMPTS), settings=LIGHT, fpr=0.3)
    assert made.fpr == 0.3
    assert made.tau == pytest.approx(calibration.scores.sort().values[4].item())
    assert torch.equal(made.scores, calibration.scores)


def test_the_seed_changes_the_scores_but_not_the_activations(model, calibration):
    other = calibrate(model, PROMPTS[:2], settings=replace(LIGHT, seed=1))
    assert not torch.equal(other.scores, calibration.scores[:2])
    assert other.settings.seed == 1


def test_the_released_variant_on_small_latents_names_the_sizes_and_the_way_out(model):
    with pytest.raises(
        InputError, match=r"MS-SSIM needs maps of at least 44 x 44, these are 16 x 16.*'paper'"
    ):
        calibrate(model, PROMPTS, variant="released")


def test_an_unknown_variant_is_refused(model):
    with pytest.raises(
        InputError, match="variant 'fast' is not known: use one of findnemo, paper, released"
    ):
        calibrate(model, PROMPTS, variant="fast")


def test_a_model_that_gives_nan_is_refused_by_prompt(tiny):
    with torch.no_grad():
        tiny.denoiser.conv_out.bias[0] = float("nan")
    with pytest.raises(NumericalError, match=r"hold-out prompt 'a cat': .*NaN"):
        calibrate(tiny, PROMPTS, settings=LIGHT)


def test_scores_do_not_depend_on_how_many_captions_share_a_pass(tiny, monkeypatch):
    scores = []
    for group, batch in ((1, 64), (2, 64), (32, 64), (32, 7)):
        monkeypatch.setattr("findnemo.passes.deltas.GROUP", group)
        monkeypatch.setattr("findnemo.passes.deltas.BATCH", batch)
        scores.append(calibrate(tiny, PROMPTS, settings=LIGHT).trajectories)
    for others in scores[1:]:
        torch.testing.assert_close(others, scores[0], rtol=0, atol=1e-5)


def test_scoring_stops_once_tau_is_known_well_enough_but_the_statistics_use_all(tiny, monkeypatch):
    prompts = [f"caption {k}" for k in range(20)]
    monkeypatch.setattr("findnemo.calibration._gathered.CHUNK", 5)
    whole = calibrate(tiny, prompts, settings=LIGHT, precision=None)
    widths = [high - low for low, high in (tau_interval(whole.scores[:n]) for n in (5, 10, 15))]
    wanted = min(widths[1:]) * 1.0001
    made = calibrate(tiny, prompts, settings=LIGHT, precision=wanted)
    scored = 5 * (1 + next(k for k, width in enumerate(widths) if width < wanted))
    assert (len(whole.trajectories), len(made.trajectories), made.count) == (20, scored, 20)
    assert made.tau == threshold(whole.scores[:scored])
    for name, mean in whole.mean.items():
        torch.testing.assert_close(made.mean[name], mean)
        torch.testing.assert_close(made.std[name], whole.std[name])


def test_a_false_positive_rate_takes_all_prompts(tiny, monkeypatch):
    monkeypatch.setattr("findnemo.calibration._gathered.CHUNK", 2)
    made = calibrate(tiny, PROMPTS, settings=LIGHT, fpr=0.5, precision=100.0)
    assert len(made.trajectories) == len(PROMPTS)


def test_trajectories_are_the_scores_of_the_first_seeds(model, calibration):
    for row, prompt in zip(calibration.trajectories, PROMPTS, strict=True):
        for n, value in enumerate(row.tolist(), 2):
            assert value == pytest.approx(findnemo.score(model, prompt, samples=range(n)), abs=1e-5)
