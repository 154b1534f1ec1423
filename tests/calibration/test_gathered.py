"""What an interrupted calibration has gathered is used again, whole and to the last bit."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from _holdout import LIGHT, PROMPTS, assert_equal

import findnemo
from findnemo import Calibration, calibrate
from findnemo.calibration import Rule, calibrate_in, chained
from findnemo.errors import DamageError, InputError, MismatchError, StoppedError
from findnemo.models import Model


def interrupt(model: Model, folder: Path, done: int) -> None:
    """A calibration that is interrupted once `done` prompts are done."""
    finished = []

    def progress(prompt: str) -> None:
        finished.append(prompt)
        if len(finished) == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_in(folder, model, PROMPTS, LIGHT, progress=progress)
    assert finished == PROMPTS[:done]


@pytest.mark.first(1)
@pytest.mark.parametrize("done", [1, 4, len(PROMPTS)])
def test_an_interrupted_calibration_goes_on_without_redoing_to_the_same_last_bit(
    tiny, tmp_path, done, monkeypatch
):
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 1)
    calibration = calibrate(tiny, PROMPTS, settings=LIGHT)
    folder = tmp_path / "run"
    interrupt(tiny, folder, done)
    assert [file.name for file in folder.iterdir()] == ["partial.safetensors"]
    again = findnemo.load(tiny.pipeline)
    calls = []
    seen = []
    again.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    made = calibrate_in(folder, again, PROMPTS, LIGHT, progress=seen.append)
    assert len(calls) == len(PROMPTS) - done  # one U-Net pass a prompt
    assert seen == PROMPTS
    assert_equal(made, calibration)
    assert not (folder / "partial.safetensors").exists()
    assert_equal(Calibration.load(folder), calibration)


@pytest.mark.first(1)
@pytest.mark.parametrize("done", range(1, len(PROMPTS) + 1))
def test_captions_that_share_passes_have_the_same_scores_wherever_it_was_interrupted(
    tiny, tmp_path, done, monkeypatch
):
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 2)
    whole = calibrate(tiny, PROMPTS, settings=LIGHT)
    interrupt(tiny, tmp_path, done)
    assert_equal(calibrate_in(tmp_path, tiny, PROMPTS, LIGHT), whole)


@pytest.mark.parametrize(
    "prompts",
    [
        [*PROMPTS[:3], "another", *PROMPTS[4:]],
        ["another", *PROMPTS[1:]],
        [PROMPTS[1], PROMPTS[0], *PROMPTS[2:]],
        PROMPTS[:2],
        [],
    ],
    ids=["last done changed", "first changed", "reordered", "fewer", "none"],
)
def test_other_hold_out_prompts_than_before_the_interruption_are_refused(
    model, tmp_path, prompts, monkeypatch
):
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 1)
    interrupt(model, tmp_path, 4)
    with pytest.raises(
        MismatchError, match=r"has done 4 hold-out prompts.*same hold-out prompts.*or a new --out"
    ):
        calibrate_in(tmp_path, model, prompts, LIGHT)


def test_more_hold_out_prompts_after_an_interruption_are_welcome(model, tmp_path):
    interrupt(model, tmp_path, 3)
    more = [*PROMPTS, "one more"]
    made = calibrate_in(tmp_path, model, more, LIGHT)
    assert_equal(made, calibrate(model, more, settings=LIGHT))


def test_what_was_done_with_other_settings_is_not_used(model, tmp_path):
    interrupt(model, tmp_path, 2)
    other = replace(LIGHT, samples=2)
    made = calibrate_in(tmp_path, model, PROMPTS[:3], other)
    assert_equal(made, calibrate(model, PROMPTS[:3], settings=other))


def test_a_damaged_interrupted_calibration_is_refused_by_name(model, tmp_path):
    (tmp_path / "partial.safetensors").write_bytes(b"damaged")
    with pytest.raises(
        InputError, match=r"partial\.safetensors is not an interrupted calibration .*remove it"
    ):
        calibrate_in(tmp_path, model, PROMPTS, LIGHT)


def test_a_flipped_bit_in_an_interrupted_calibration_is_noticed(tiny, tmp_path):
    interrupt(tiny, tmp_path, 4)
    file = tmp_path / "partial.safetensors"
    random = Random(0)

    whole = file.read_bytes()
    for place in random.sample(range(len(whole)), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises((DamageError, StoppedError)) as ended:
            calibrate_in(tmp_path, tiny, PROMPTS, LIGHT, stop=lambda: True)
        if ended.type is StoppedError:  # the key itself: begun afresh
            assert str(ended.value).endswith("hold-out prompts done: 0")


def test_an_interruption_does_not_change_where_scoring_stops(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("findnemo.calibration._gathered.CHUNK", 2)
    whole = calibrate(tiny, PROMPTS, settings=LIGHT, precision=100.0)
    assert len(whole.trajectories) == 2

    def stop(prompt: str) -> None:
        if prompt == PROMPTS[2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_in(tmp_path, tiny, PROMPTS, LIGHT, Rule(precision=100.0), stop)
    assert_equal(calibrate_in(tmp_path, tiny, PROMPTS, LIGHT, Rule(precision=100.0)), whole)


@pytest.mark.first(1)
@pytest.mark.parametrize("at", range(len(PROMPTS)))
def test_an_interrupt_in_the_midst_of_taking_a_group_leaves_no_half_of_it(
    tiny, tmp_path, at, monkeypatch
):
    """A second Ctrl-C comes anywhere: between the scores of a group and its prompts, too."""
    monkeypatch.setattr("findnemo.passes.deltas.GROUP", 3)
    monkeypatch.setattr("findnemo.calibration._calibrate.SAVE_EVERY", 0.0)
    whole = calibrate(tiny, PROMPTS, settings=LIGHT)
    left = iter(range(100))

    def interrupted(digest, prompt):
        if next(left) == at:
            raise KeyboardInterrupt
        return chained(digest, prompt)

    with monkeypatch.context() as patch:
        patch.setattr("findnemo.calibration._gathered.chained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            calibrate_in(tmp_path, tiny, PROMPTS, LIGHT)
    assert_equal(calibrate_in(tmp_path, tiny, PROMPTS, LIGHT), whole)
