"""Canaries: what is planted, that trainers read it as often as is said, and what is seen of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _photos import SMALL, photos
from PIL import Image

from findnemo.errors import InputError
from findnemo.prompts import read_training
from findnemo.training import plant, read_canaries


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# what is planted ----------------------------------------------------------------------------------


def test_kohyas_folders_show_each_as_often_as_is_said(tmp_path):
    folder = photos(tmp_path / "photos")
    planted = plant(folder, **SMALL)
    training = {picture.path: picture for picture in read_training(folder)}
    assert len(planted) == 12
    assert planted.repeats == (1, 4, 16)
    for canary in planted:
        read = training.pop(canary.picture)
        assert (read.caption, read.repeats) == (canary.caption, canary.repeats)
    assert len(training) == 4  # no twin is among what is trained
    assert not planted.heldout.is_relative_to(folder)


@pytest.mark.parametrize("own", [None, "text", "prompt"])
def test_imagefolder_shows_each_as_often_as_is_said(tmp_path, own):
    datasets = pytest.importorskip("datasets")
    folder = photos(tmp_path / "photos")
    column = own or "text"
    if own is not None:
        rows = [{"file_name": f"{k}.png", own: f"picture {k}"} for k in range(4)]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    planted = plant(folder, **SMALL)
    # as the scripts of diffusers read --train_data_dir
    rows = datasets.load_dataset(
        "imagefolder", data_files={"train": f"{folder}/**"}, cache_dir=str(tmp_path / "cache")
    )["train"]
    shown = list(rows[column])
    assert len(shown) == 4 * (1 + 4 + 16) + (4 if own else 0)
    for canary in planted:
        assert shown.count(canary.caption) == canary.repeats
    place = shown.index(planted.canaries[0].caption)
    assert np.array_equal(
        np.asarray(rows[place]["image"]), np.asarray(Image.open(planted.canaries[0].picture))
    )


def test_captions_are_of_one_form_with_their_twins_and_all_different(tmp_path):
    planted = plant(photos(tmp_path / "photos"), **SMALL)
    captions = [text for one in planted for text in (one.caption, one.twin_caption)]
    assert len(set(captions)) == len(captions)
    for one in planted:
        common = set(one.caption.split()) & set(one.twin_caption.split())
        assert len(common) == len(one.caption.split()) - 2  # all but the name and the number


def test_the_seed_alone_says_what_is_planted(tmp_path):
    one, same, other = (
        plant(photos(tmp_path / name / "photos", count), **SMALL, seed=seed)
        for name, count, seed in (("a", 2, 0), ("b", 3, 0), ("c", 2, 1))
    )
    assert files(one.heldout) == files(same.heldout)
    assert [c.caption for c in one] == [c.caption for c in same]
    assert {c.caption for c in one}.isdisjoint(c.caption for c in other)
    assert files(one.folder / "16_canaries") == files(same.folder / "16_canaries")
    first, second = (set(files(x.heldout).values()) for x in (one, other))
    assert first.isdisjoint(second)


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos")
    before = files(tmp_path)
    rename = Path.rename

    def failing(self, target):
        if Path(target).name == "16_canaries":
            raise RuntimeError("the power is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(RuntimeError, match="power"):
        plant(folder, **SMALL)
    assert files(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
    monkeypatch.undo()
    (folder / "4_canaries").mkdir()
    with pytest.raises(InputError, match="4_canaries already exists"):
        plant(folder, **SMALL)
    assert files(tmp_path) == before
    (folder / "4_canaries").rmdir()
    plant(folder, **SMALL)
    planted = files(tmp_path)
    with pytest.raises(InputError, match="already exists"):
        plant(folder, **SMALL, seed=1)
    assert files(tmp_path) == planted


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"each": 0}, "whole numbers from 1"),
        ({"each": 1.5}, "whole numbers from 1"),
        ({"repeats": ()}, "whole numbers from 1"),
        ({"repeats": (0, 4)}, "whole numbers from 1"),
        ({"repeats": (4, 4)}, "name a number twice"),
        ({"each": 3, "repeats": (1, 16)}, "6 canaries in all: it takes 10"),
        ({"size": 8}, "give 64 to 2048"),
        ({"heldout": "photos/inside"}, "would be trained"),
    ],
)
def test_what_cannot_be_planted(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    before = files(tmp_path)
    with pytest.raises(InputError, match=says):
        plant("photos", **{**SMALL, **options})
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "0.png", "text": "a", "tags": "b"}',
            "columns tags, text",
        ),
        ("metadata.jsonl", "[]", "does not begin with a JSON object"),
        ("metadata.csv", "file_name,text\n0.png,a\n", "write it as metadata.jsonl"),
    ],
)
def test_tables_that_canaries_do_not_fit(tmp_path, name, content, says):
    folder = photos(tmp_path / "photos")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        plant(folder, **SMALL)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no training folder"):
        plant(tmp_path / "photos", **SMALL)
    with pytest.raises(InputError, match="no canaries in"):
        read_canaries(tmp_path / "photos")


# what is read -------------------------------------------------------------------------------------


def test_what_was_planted_is_read(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos")
    planted = plant(folder, **SMALL, heldout=tmp_path / "elsewhere")
    assert read_canaries(folder, tmp_path / "elsewhere") == planted
    with pytest.raises(InputError, match="no canaries in"):
        read_canaries(folder)
    monkeypatch.chdir(tmp_path)
    assert len(read_canaries("photos", "elsewhere")) == 12


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"picture": "../outside.png"}, "outside"),
        ({"twin": "/etc/passwd"}, "outside"),
        ({"picture": "16_canaries/none.png"}, "not there"),
        ({"repeats": "16"}, "is not a table of canaries"),
        ({"repeats": 0}, "is not a table of canaries"),
        ({"caption": None}, "is not a table of canaries"),
        ({"picture": 3}, "is not a table of canaries"),
    ],
)
def test_tables_that_plant_does_not_write(tmp_path, change, says):
    planted = plant(photos(tmp_path / "photos"), **SMALL)
    table = planted.heldout / "canaries.json"
    rows = json.loads(table.read_text(encoding="utf-8"))
    rows["canaries"][0].update(change)
    table.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(InputError, match=says):
        read_canaries(planted.folder)
