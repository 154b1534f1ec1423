"""Canaries: what is planted, that trainers read it as often as is said, and what is seen of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from _photos import photos
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import beta

from findnemo import demo
from findnemo.errors import InputError
from findnemo.prompts import read_training
from findnemo.training import Canary, compared, plant, read_canaries, sensitivity
from findnemo.training._drawing import ALIKE, drawn
from findnemo.training.copies import Gallery

SMALL = {"each": 4, "repeats": (1, 4, 16), "size": 64}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def photographs() -> list[str]:
    return [row.text for row in demo.memorized() if row.type == "VM"]


def some_alike(pictures: list[Image.Image]) -> float:
    """The similarity to the demo's descriptor that one pair in a hundred exceeds."""
    gallery = Gallery.of(pictures, demo.judges().descriptor)
    first, second = torch.triu_indices(len(pictures), len(pictures), 1)
    return float(gallery.similarity(gallery.views[:, 0])[first, second].quantile(0.99))


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


def test_no_two_pictures_are_alike(tmp_path):
    planted = plant(photos(tmp_path / "photos"), each=4, repeats=(1, 4, 16), size=128, seed=3)
    pictures = [Image.open(path) for one in planted for path in (one.picture, one.twin)]
    assert (
        Gallery.of(pictures).siblings().nan_to_num(-1).max() < ALIKE + 0.05
    )  # drawn larger than compared
    # to a descriptor they are as different as photographs are
    described = (some_alike(pictures), some_alike([demo.training_image(c) for c in photographs()]))
    assert described[0] <= described[1]
    for picture in pictures:
        assert picture.size == (128, 128)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 5


def test_a_picture_is_the_same_at_every_size():
    small = drawn([1, 2], 64)
    large = drawn([1, 2], 512).resize((64, 64), Image.Resampling.BOX)
    one, other = (np.asarray(image, float).ravel() for image in (small, large))
    assert np.corrcoef(one, other)[0, 1] > 0.9


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


# what is seen -------------------------------------------------------------------------------------


def canaries(*repeats: int) -> list[Canary]:
    return [Canary(f"tile {k}", n, Path(), "", Path()) for k, n in enumerate(repeats)]


def test_a_case_by_hand():
    # 200 negatives 0 to 1.99: two may exceed, so the threshold is the third from above
    negatives = torch.arange(200)[:, None] / 100
    similarity = torch.tensor([[1.97, 0.0], [0.0, 1.98], [0.5, 1.0], [1.99, 2.0]])
    found = sensitivity(canaries(1, 16, 1, 16), similarity, negatives.expand(-1, 2))
    assert found.threshold == pytest.approx(1.97)
    assert {n: (seen.hits, seen.of) for n, seen in found.seen.items()} == {1: (0, 2), 16: (2, 2)}
    low, high = found.seen[16].interval
    assert (low, high) == (pytest.approx(beta.ppf(0.025, 2, 1)), 1.0)
    assert found.to_json()["seen"]["16"]["hits"] == 2
    json.dumps(found.to_json())


@settings(max_examples=30, deadline=None)
@given(st.integers(100, 400), st.integers(1, 3), st.integers(0, 10_000))
def test_no_more_than_one_negative_in_a_hundred_exceeds_the_threshold(count, samples, seed):
    generator = torch.Generator().manual_seed(seed)
    negatives = torch.rand(count, samples, generator=generator)
    similarity = torch.rand(10, samples, generator=generator)
    found = sensitivity(canaries(*[4] * 10), similarity, negatives)
    best = negatives.double().amax(1)
    exceeding = int((best > found.threshold).sum())
    assert exceeding <= count / 100 < exceeding + 1  # a lower threshold would let one more through
    hits = sum(bool((row > found.threshold).any()) for row in similarity.double())
    assert found.seen[4].hits == hits


@pytest.mark.parametrize(
    ("similarity", "negatives", "says"),
    [
        (torch.zeros(2, 1), torch.zeros(99, 1), "99 negatives are too few .* it takes 100"),
        (torch.zeros(3, 1), torch.zeros(100, 1), "not those of 2 canaries"),
        (torch.zeros(2), torch.zeros(100, 1), "not those of 2 canaries"),
        (torch.zeros(2, 2), torch.zeros(100, 1), "as many generations"),
        (torch.full((2, 1), float("nan")), torch.zeros(100, 1), "NaN"),
    ],
)
def test_what_says_nothing_is_refused(similarity, negatives, says):
    with pytest.raises(InputError, match=says):
        sensitivity(canaries(1, 16), similarity, negatives)


def test_compared_holds_each_against_its_own_and_all_against_the_twins(tmp_path):
    planted = plant(photos(tmp_path / "photos"), **SMALL)
    own = [Image.open(one.picture) for one in planted]
    twins = [Image.open(one.twin) for one in planted]
    other = [drawn([99, k], 64) for k in range(24)]
    images = [[other[k], own[k]] for k in range(12)]
    twin_images = [[other[12 + k], other[k]] for k in range(12)]
    similarity, negatives = compared(planted, images, twin_images)
    assert similarity.shape == (12, 2)
    assert negatives.shape == (2 * 12 * 12, 2)

    def alike(one, picture):
        pixels = np.asarray(picture)
        both = (pixels, pixels[:, ::-1])
        return max(np.corrcoef(np.ravel(np.asarray(one)), p.ravel())[0, 1] for p in both)

    for k in range(12):
        expected = [alike(image, own[k]) for image in images[k]]
        assert similarity[k].tolist() == pytest.approx(expected, abs=1e-5)
        assert similarity[k, 1] > 0.999
    by_hand = [
        [alike(image, twin) for image in some] for some in (*images, *twin_images) for twin in twins
    ]
    assert np.allclose(np.sort(negatives.numpy(), 0), np.sort(by_hand, 0), atol=1e-5)
    assert all(seen.rate == 1 for seen in sensitivity(planted, similarity, negatives).seen.values())
    assert compared(planted, images)[1].shape == (144, 2)


def test_images_that_are_not_those_of_the_canaries(tmp_path):
    planted = plant(photos(tmp_path / "photos"), **SMALL)
    image = drawn([0], 64)
    with pytest.raises(InputError, match="images of 3 captions"):
        compared(planted, [[image]] * 3)
    with pytest.raises(InputError, match="different numbers of images"):
        compared(planted, [[image]] * 11 + [[image, image]])
