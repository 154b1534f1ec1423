"""The threshold of a model: made of hold-out captions once, or taken from a calibration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from findnemo import demo, tasks
from findnemo.errors import InputError, MismatchError
from findnemo.tasks import Detecting
from findnemo.tasks.calibrating import given_calibration, rate_told

HOLDOUT = ["a cat", "two dogs", "an owl", "the sea", "a tree"]
EVERY = Detecting(precision=0)


@pytest.fixture(scope="module")
def kept(tmp_path_factory, saved_model):
    """The folder of a calibration."""
    folder = tmp_path_factory.mktemp("kept") / "calibration"
    tasks.calibrate(saved_model, HOLDOUT, folder, EVERY)
    return folder


def test_the_same_call_gives_the_calibration_that_is_there(kept, saved_model):
    said = []
    before = (kept / "calibration.safetensors").read_bytes()
    listener = tasks.Listener(say=said.append)
    again = tasks.calibrate(saved_model, HOLDOUT, kept, EVERY, listener=listener)
    assert said == [f"{kept} holds this calibration already"]
    assert again.count == 5
    assert (kept / "calibration.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("captions", "detecting", "differs"),
    [
        (HOLDOUT[:4], EVERY, "5 captions, now 4"),
        (HOLDOUT, replace(EVERY, variant="paper"), "paper"),
        (HOLDOUT, replace(EVERY, fpr=0.5), "fpr None, now 0.5"),
    ],
)
def test_another_calibration_is_not_written_over(kept, saved_model, captions, detecting, differs):
    before = (kept / "calibration.json").read_bytes()
    with pytest.raises(
        MismatchError, match=rf"{kept} holds another calibration: .*{differs}.*--force"
    ):
        tasks.calibrate(saved_model, captions, kept, detecting)
    assert (kept / "calibration.json").read_bytes() == before


def test_too_few_captions_and_a_file_as_folder_are_refused(saved_model, tmp_path):
    with pytest.raises(InputError, match="two hold-out prompts, not 1"):
        tasks.calibrate(saved_model, HOLDOUT[:1], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file: give a directory"):
        tasks.calibrate(saved_model, HOLDOUT, tmp_path / "file")


def test_a_given_calibration_is_taken_at_the_rate_that_is_wanted():
    own = demo.calibration()
    assert given_calibration(Detecting()) is None
    assert given_calibration(Detecting(calibration=own)) is own
    assert given_calibration(Detecting(calibration=own, fpr=0.5)).tau < own.tau
    for name, value in (("variant", "findnemo"), ("seed", 7)):
        with pytest.raises(MismatchError, match=f"leave --{name} out"):
            given_calibration(Detecting(calibration=own, **{name: value}))


def test_a_threshold_without_a_rate_says_how_many_captions_a_rate_takes():
    assert rate_told(98).endswith("it takes 99 hold-out captions, these are 98")
    assert rate_told(99).endswith("your 99 hold-out captions are enough for it")
