"""The files of a fine-tune audit: those that a run names, and the table of training pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from findnemo.errors import InputError
from findnemo.metrics import Judges
from findnemo.prompts import TrainingPicture
from findnemo.runs.fine_tunes import (
    TrainingSubject,
    VariantImages,
    folder_of_variant,
    inside,
    judge_variant,
    summary,
    write_table,
)
from findnemo.training import Gallery, Generation


def test_the_table_of_pictures_says_which_models_copy_each(tmp_path):
    """Equal pictures share a group: a model that copies one copies the other."""
    variants = [
        {"name": "base", "copies_of": {"p0.png": 1}},
        {"name": "LoRA", "copies_of": {"p0.png": 4, "p1.png": 2}},
    ]
    seen = {"similarity": 0.9, "margin": 0.1, "level": 0.7, "begins": None, "caption": "a cat"}
    seen |= {"state": "copied", "ways": {"own": [1, 4]}, "cause": "training"}
    pictures = [seen | {"file": f"p{k}.png", "group": (0, 1, 0)[k]} for k in range(3)]
    found = {"variants": variants, "pictures": pictures}
    found["pictures"][0]["base"] = {"copies": 3, "nearest": []}
    write_table(found, tmp_path / "training.csv")
    rows = list(csv.DictReader((tmp_path / "training.csv").open(encoding="utf-8")))
    assert [row["copied_by"] for row in rows] == [
        "base (1); LoRA (4)",
        "LoRA (2)",
        "base (1); LoRA (4)",
    ]
    assert {row["cause"] for row in rows} == {"training"}
    assert [row["copies_base"] for row in rows] == ["3", "", ""]


def test_names_that_look_alike_have_folders_of_their_own():
    names = ("step_1", "step-1", "犬", "猫", "LoRA x -0.5", "LoRA x 0.5", "..", "base")
    folders = [folder_of_variant(Path("run"), name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == Path("run/variants") for folder in folders)
    assert all(folder.name.strip(".") for folder in folders)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a\0b", "variants/../../x"])
def test_files_outside_of_a_run_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="outside of it"):
        inside(tmp_path / "run", name)


def test_a_caption_without_images_leaves_the_verdict_open(tmp_path):
    shown = VariantImages((Generation("a", "own", 0),), (tmp_path / "0.png",), failed=("b",))
    Image.new("RGB", (8, 8), (9, 90, 200)).save(tmp_path / "0.png")
    picture = Image.effect_noise((8, 8), 80).convert("RGB")
    one = TrainingPicture(tmp_path / "a.png", "a")
    subject = TrainingSubject([one], Gallery.of([picture]), Judges(), torch.empty(0, 1), rate=0.99)
    found = judge_variant(subject, shown, None, "LoRA")
    assert found.judgement.verdict(0.99) == "does not copy"
    (row,) = summary(subject, [found], "LoRA", tmp_path)["variants"]
    assert (row["verdict"], row["failed"]) == ("cannot be said", 1)
