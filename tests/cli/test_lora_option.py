"""A LoRA named beside its base model: audited, remembered, exported, and never passed over."""

from __future__ import annotations

import pytest
import torch
from _command import cli
from _place import make_place
from safetensors.torch import save_file

import findnemo
from findnemo.runs import Run
from findnemo.tasks.opening import load_model, source_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model and captions; a LoRA of all its value layers, and a calibration with it on."""
    here = make_place(tmp_path_factory.mktemp("place"))
    model = findnemo.load(here / "model")
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, layer in model.value_layers.items():
        out, into = layer.weight.shape
        tensors[f"unet.{name}.lora_A.weight"] = torch.randn(2, into, generator=generator)
        tensors[f"unet.{name}.lora_B.weight"] = torch.randn(out, 2, generator=generator)
    save_file(tensors, here / "lora.safetensors")
    return here


@pytest.mark.slow
def test_a_run_remembers_its_lora_and_its_strength(place, tmp_path):
    lora = f"{place / 'lora.safetensors'}:0.5"
    usual = (place / "model", "--lora", lora, "--prompts", place / "captions.csv")
    made = cli(
        "calibrate",
        place / "model",
        "--lora",
        lora,
        "-p",
        place / "captions.csv",
        "--out",
        tmp_path / "c",
    )
    assert made.status == 0, made.err
    out = tmp_path / "run"
    refused = cli("detect", *usual, "-c", place / "calibration", "--out", out)
    assert refused.status == 2
    assert "this calibration was made for another model" in " ".join(refused.err.split())
    found = cli("detect", *usual, "-c", tmp_path / "c", "--out", out)
    assert found.status == 0, found.err
    with Run.open(out) as run:
        assert run.meta("source_options") == {"lora": lora}
        again = load_model(source_of(run))
    assert again.fingerprint == findnemo.load(place / "model", lora=lora).fingerprint
    assert again.fingerprint != findnemo.load(place / "model").fingerprint


def test_a_lora_of_another_model_is_named_before_any_work(place, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file(
        {
            "lora_unet_nowhere.lora_down.weight": torch.zeros(2, 4),
            "lora_unet_nowhere.lora_up.weight": torch.zeros(4, 2),
        },
        file,
    )
    result = cli(
        "detect",
        place / "model",
        "--lora",
        file,
        "-p",
        place / "captions.csv",
        "-c",
        place / "calibration",
        "--out",
        tmp_path / "run",
    )
    assert result.status == 2
    assert "changes lora_unet_nowhere.lora_down.weight" in " ".join(result.err.split())
    assert not (tmp_path / "run").exists()
