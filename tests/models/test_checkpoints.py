"""Checkpoints of a training, as trainers lay them out, in their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from findnemo.errors import InputError
from findnemo.models import lora_checkpoints, model_checkpoints

LORA = "pytorch_lora_weights.safetensors"


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345678")


def names(found) -> list[str]:
    return [one.name for one in found]


def test_checkpoints_of_diffusers_are_in_the_order_of_their_steps(tmp_path):
    steps = (1000, 500, 5000)
    touch(*(tmp_path / f"checkpoint-{n}" / LORA for n in steps), tmp_path / "logs" / "events.out")
    assert names(lora_checkpoints(tmp_path)) == [
        "checkpoint-500",
        "checkpoint-1000",
        "checkpoint-5000",
    ]
    touch(tmp_path / LORA)
    assert names(lora_checkpoints(tmp_path))[-1] == "final"
    assert lora_checkpoints(tmp_path)[-1].place == str(tmp_path / LORA)


@pytest.mark.parametrize(
    "files",
    [
        ("dog2-000001", "dog2-000002", "dog2-000010", "dog2"),
        ("dog-2-000001", "dog-2-000002", "dog-2"),
        ("cat-step00000500", "cat-step00001000", "cat"),
        ("x_1", "x_2", "x_10"),
        ("lora-save-500-25-0", "lora-save-1000-50-3", "lora-save-1500-75-0"),
        ("dog_e2", "dog_e10"),
        ("dog-500steps", "dog-1000steps"),
    ],
)
def test_files_of_kohya_are_in_the_order_of_their_numbers_and_the_last_has_none(tmp_path, files):
    touch(*(tmp_path / f"{name}.safetensors" for name in reversed(files)))
    assert names(lora_checkpoints(tmp_path)) == list(files)


def test_one_lora_is_one_checkpoint(tmp_path):
    touch(tmp_path / "one" / LORA, tmp_path / "a.safetensors")
    assert names(lora_checkpoints(tmp_path / "one")) == ["one"]
    assert names(lora_checkpoints(tmp_path / "a.safetensors")) == ["a"]


def test_tuned_models_are_directories_or_files(tmp_path):
    touch(
        tmp_path / "checkpoint-20" / "model_index.json",
        tmp_path / "checkpoint-3" / "model_index.json",
    )
    touch(tmp_path / "checkpoint-3" / "unet" / "x.safetensors", tmp_path / "other" / "a.txt")
    assert names(model_checkpoints(tmp_path)) == ["checkpoint-3", "checkpoint-20"]
    assert names(model_checkpoints(tmp_path / "checkpoint-3")) == ["checkpoint-3"]


@pytest.mark.parametrize("checkpoints", [lora_checkpoints, model_checkpoints])
def test_a_directory_without_any_is_named(tmp_path, checkpoints):
    touch(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"holds no (LoRA|model)"):
        checkpoints(tmp_path)
