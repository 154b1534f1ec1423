"""An export held against the audited model: what is right passes, and each thing that is not is
named.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from _command import cli
from _tiny import tiny_pipeline
from _tiny_files import make_run
from safetensors.torch import load_file, save_file

import findnemo
from findnemo import NeuronSet, tasks
from findnemo.errors import InputError, MismatchError
from findnemo.tasks.options import Selecting, Source

CAPTION = "a red fox"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of a checkpoint, with four neurons in two layers of one width."""
    root = tmp_path_factory.mktemp("comparison")
    tiny_pipeline().save_pretrained(root / "model")
    model = findnemo.load(root / "model")
    one, other = list(model.widths())[:2]
    neurons = NeuronSet({one: [0, 3], other: [1, 2]})
    return make_run(root / "run", model, {CAPTION: neurons})


def unet_file(checkpoint: Path) -> Path:
    return checkpoint / "unet" / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def clean(run, tmp_path) -> Path:
    return tasks.export(run, ["checkpoint"], tmp_path / "clean")["checkpoint"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["checkpoint", "file", "lora", "kohya"])
@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
def test_every_form_in_every_dtype_is_right(run, tmp_path, form, dtype):
    name = "clean.safetensors" if form in ("file", "kohya") else "clean"
    place = tasks.export(run, [form], tmp_path / name, model=Source(dtype=dtype))[form]
    assert tasks.check_export(run, place) == []


@pytest.mark.slow
def test_a_single_file_without_its_yaml_is_right_and_that_is_said(tmp_path):
    tiny_pipeline("v_prediction").save_pretrained(tmp_path / "model")
    model = findnemo.load(tmp_path / "model")
    neurons = NeuronSet({next(iter(model.widths())): [1]})
    run = make_run(tmp_path / "run", model, {CAPTION: neurons})
    place = tasks.export(run, ["file"], tmp_path / "clean.safetensors")["file"]
    heard: list[str] = []
    listener = tasks.Listener(warn=heard.append)
    assert tasks.check_export(run, place, listener=listener) == []
    assert heard == []
    beside = place.with_suffix(".yaml")
    beside.unlink()
    assert tasks.check_export(run, place, listener=listener) == []
    assert heard == [f"{beside} is missing: programs read there what the file predicts"]


@pytest.mark.slow
def test_a_lora_without_its_copies_is_right_and_the_lora_itself_is_not(run, tmp_path):
    base = tmp_path / "base"
    tiny_pipeline(seed=1).save_pretrained(base)
    layer = next(iter(findnemo.load(base).widths()))
    weight = findnemo.load(base).denoiser.get_submodule(layer).weight
    trained = tmp_path / "trained.safetensors"
    torch.manual_seed(0)
    save_file(
        {
            f"unet.{layer}.lora_A.weight": torch.randn(2, weight.shape[1]).half(),
            f"unet.{layer}.lora_B.weight": torch.randn(len(weight), 2).half(),
        },
        trained,
    )
    model = findnemo.load(base, lora=trained)
    of_lora = make_run(tmp_path / "run", model, {CAPTION: NeuronSet({layer: [1]})})
    for form in ("adapter", "adapter-kohya"):
        place = tasks.export(of_lora, [form], tmp_path / f"{form}.safetensors")[form]
        assert tasks.check_export(of_lora, place) == []
    (told,) = tasks.check_export(of_lora, trained)
    assert told == f"unet {layer}.weight is not edited in 1 of its rows (1)"


def test_the_right_rows_in_the_wrong_layers_are_named(run, clean):
    """Each layer has two zero rows, and none of the other."""
    weights = load_file(unet_file(clean))
    whole = load_file(unet_file(run.parent / "model"))
    one, other = [f"{name}.weight" for name in list(findnemo.load(clean).widths())[:2]]
    for name, rows in ((one, [1, 2]), (other, [0, 3])):
        weights[name] = whole[name].clone()
        weights[name][rows] = 0
    save_file(weights, unet_file(clean))
    told = tasks.check_export(run, clean)
    assert told == [
        f"unet {name} has other values in 4 of its rows (0, 1, 2, 3)"
        for name in sorted((one, other))
    ]


@pytest.mark.slow
def test_a_weight_outside_the_edit_and_a_setting_are_named(run, clean):
    weights = load_file(unet_file(clean))
    weights["conv_in.bias"][2] += 1e-6
    save_file(weights, unet_file(clean))
    file = clean / "scheduler" / "scheduler_config.json"
    settings = json.loads(file.read_text()) | {"prediction_type": "v_prediction"}
    file.write_text(json.dumps(settings))
    setting, weight = tasks.check_export(run, clean)
    assert "prediction_type 'v_prediction' instead of 'epsilon'" in setting
    assert weight == "unet conv_in.bias has other values in 1 of its rows (2)"


@pytest.mark.slow
def test_a_factor_and_a_part_of_the_neurons_are_checked_as_they_were_chosen(run, tmp_path):
    half = Selecting(factor=0.5)
    place = tasks.export(run, out=tmp_path / "half", selecting=half)["checkpoint"]
    assert tasks.check_export(run, place, half) == []
    assert len(tasks.check_export(run, place)) == 2


def test_a_model_of_other_parts_and_what_is_no_export_are_refused(run, clean, tmp_path):
    with pytest.raises(InputError, match="no export with weights"):
        tasks.check_export(run, tmp_path / "neurons.json")
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        tasks.check_export(run, tmp_path / "gone.safetensors")
    other = findnemo.load(clean)
    with pytest.raises(MismatchError, match="this run"):
        tasks.check_export(run, clean, model=other)


@pytest.mark.parametrize(("dtype", "told"), [("float16", 1), ("float32", 0)])
def test_a_checkpoint_in_half_precision_says_how_to_load_it(run, tmp_path, dtype, told):
    heard: list[str] = []
    listener = tasks.Listener(say=heard.append, warn=heard.append)
    tasks.export(run, out=tmp_path / "clean", model=Source(dtype=dtype), listener=listener)
    assert sum("F16: give from_pretrained a dtype" in line for line in heard) == told


@pytest.mark.slow
def test_by_the_command_line(run, clean):
    right = cli("export", run, "--check", clean)
    assert (right.status, right.out) == (0, "")
    assert f"{clean} is right: the audited model" in " ".join(right.err.split())
    assert "with 4 neurons off, all else unchanged" in " ".join(right.err.split())
    wrong = cli("export", run, "--check", run.parent / "model")
    assert wrong.status == 1
    assert "is not edited in 2 of its rows (0, 3)" in " ".join(wrong.err.split())
    assert "is not the audited model with these neurons off" in " ".join(wrong.err.split())
    both = cli("export", run, "--check", clean, "--out", clean.parent / "again")
    assert both.status == 2
    assert "--check writes nothing" in " ".join(both.err.split())
