"""A calibration as files, and with another model or other settings."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from _holdout import LIGHT, assert_equal
from _tiny import tiny_pipeline
from safetensors.torch import load_file, save_file

import findnemo
from findnemo import Calibration
from findnemo.errors import InputError, MismatchError
from findnemo.settings import PAPER


def test_z_scores_by_hand():
    calibration = Calibration(
        "",
        "",
        PAPER,
        0.5,
        {"mid": torch.tensor([1.0, 2.0, 3.0, 3.0])},
        {"mid": torch.tensor([0.5, 4.0, 0.0, 0.0])},
        2,
        torch.empty(0),
    )
    z = calibration.z_scores({"mid": torch.tensor([2.0, 0.0, 3.0, 4.0])})
    assert z["mid"].tolist() == [2.0, -0.5, 0.0, float("inf")]


# files --------------------------------------------------------------------------------------------


def test_a_saved_calibration_is_the_same_to_the_last_bit(calibration, tmp_path):
    for made in (
        calibration,
        replace(calibration, fpr=0.05, tau=0.1 + 0.2),
    ):  # the second replaces the first
        assert made.save(tmp_path / "calibration") == tmp_path / "calibration"
        assert_equal(Calibration.load(tmp_path / "calibration"), made)
        names = sorted(path.name for path in (tmp_path / "calibration").iterdir())
        assert names == ["calibration.json", "calibration.safetensors"]


@pytest.mark.parametrize("name", ["calibration.json", "calibration.safetensors"])
def test_a_calibration_without_one_of_its_files_is_refused(calibration, tmp_path, name):
    calibration.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"holds no {name}; make one with `findnemo calibrate`"):
        Calibration.load(tmp_path)


def test_something_that_is_no_calibration_directory_is_refused(tmp_path):
    (tmp_path / "file.json").write_text("{}")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file.json"):
        with pytest.raises(InputError, match="is not a calibration"):
            Calibration.load(path)


@pytest.mark.parametrize(
    "content", ["", '{"format": 3', "[]", "{}", '{"format": 3, "layers": ["nowhere"]}']
)
def test_a_damaged_description_is_refused(calibration, tmp_path, content):
    calibration.save(tmp_path)
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(InputError, match="is damaged or not a calibration"):
        Calibration.load(tmp_path)


def describe(folder: Path, **changes) -> None:
    """Change a description, with a digest for it, so that only what does not fit is noticed."""
    description = folder / "calibration.json"
    about = json.loads(description.read_text()) | changes
    del about["digest"]
    tensors = (folder / "calibration.safetensors").read_bytes()
    told = json.dumps(about, sort_keys=True).encode()
    about["digest"] = hashlib.sha256(told + tensors).hexdigest()
    description.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has calibration format 99, this version of findnemo reads 3"),
        ({"settings": {"colour": "red"}}, "settings of another findnemo version.*colour"),
        ({"settings": None}, "settings of another findnemo version|is damaged"),
        ({"layers": ["mid"]}, "is damaged.*mean.mid"),
        ({"layers": 7}, "its layers cannot be those of a calibration"),
        ({"layers": [[1]]}, "its layers cannot be those of a calibration"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(calibration, tmp_path, change, message):
    calibration.save(tmp_path)
    describe(tmp_path, **change)
    with pytest.raises(InputError, match=message):
        Calibration.load(tmp_path)


def test_damaged_tensors_are_refused(calibration, tmp_path):
    calibration.save(tmp_path)
    path = tmp_path / "calibration.safetensors"
    whole = path.read_bytes()
    tensors = load_file(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        Calibration.load(tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "trajectories"}, path)
    describe(tmp_path)
    with pytest.raises(InputError, match=r"is damaged.*trajectories"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize("name", ["calibration.json", "calibration.safetensors"])
def test_a_flipped_bit_anywhere_in_a_calibration_is_noticed(calibration, tmp_path, name):
    file = calibration.save(tmp_path) / name
    whole = file.read_bytes()
    random = Random(0)
    for place in random.sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        try:
            made = Calibration.load(tmp_path)
        except InputError:
            continue
        assert_equal(made, calibration)  # white space in the description, say


# use with another model or other settings ---------------------------------------------------------


def test_a_calibration_fits_its_model_and_settings(model, calibration):
    calibration.check(model)
    calibration.check(model, LIGHT)


def test_another_model_is_refused_by_name(calibration):
    other = findnemo.load(tiny_pipeline(seed=1))
    other.source = "another/model"
    with pytest.raises(
        MismatchError, match=r"another model: live StableDiffusionPipeline .*not another/model"
    ):
        calibration.check(other)


def test_other_layers_are_refused(model, calibration):
    mean = {name: value for name, value in calibration.mean.items() if "mid_block" not in name}
    with pytest.raises(MismatchError, match=r"knows layers .* the model has .*mid_block"):
        replace(calibration, mean=mean).check(model)


def test_other_settings_are_refused_and_the_difference_is_named(model, calibration):
    with pytest.raises(
        MismatchError, match=r"other settings: samples 3 instead of 5, seed 0 instead of 7;"
    ):
        calibration.check(model, replace(LIGHT, samples=5, seed=7))
