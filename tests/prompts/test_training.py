"""Training folders as trainers lay them out, and what of them cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from findnemo.errors import InputError
from findnemo.prompts import read_training


def picture(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(path)
    return path


def found(source: Path, **options) -> list[tuple[str, str | None, int]]:
    return [(p.path.name, p.caption, p.repeats) for p in read_training(source, **options)]


def test_a_text_of_the_same_name_is_the_caption(tmp_path):
    for name in ("b.jpg", "a.PNG", "c.webp"):
        picture(tmp_path / name)
    (tmp_path / "a.txt").write_text("\ufeffa red\n fox ", encoding="utf-8")
    (tmp_path / "b.caption").write_text("a grey owl", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no picture", encoding="utf-8")
    picture(tmp_path / ".hidden.png")
    training = read_training(tmp_path)
    assert found(tmp_path) == [
        ("a.PNG", "a red fox", 1),
        ("b.jpg", "a grey owl", 1),
        ("c.webp", None, 1),
    ]
    assert training.notes == (f"{tmp_path}: 1 of 3 pictures have no caption (c.webp)",)
    assert training.triggers == ("a",)


def test_kohyas_folders_say_how_often_and_by_which_words(tmp_path):
    picture(tmp_path / "10_sks dog" / "1.png")
    picture(tmp_path / "10_sks dog" / "2.png")
    (tmp_path / "10_sks dog" / "2.txt").write_text("sks dog asleep", encoding="utf-8")
    picture(tmp_path / "1_dog" / "3.png")
    training = read_training(tmp_path)
    assert found(tmp_path) == [
        ("1.png", "sks dog", 10),
        ("2.png", "sks dog asleep", 10),
        ("3.png", "dog", 1),
    ]
    assert training.triggers == ("sks dog", "dog")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata_of_an_image_folder(tmp_path, kind):
    rows = [("x/1.png", "a red fox"), ("2.png", "a grey owl"), ("x/1.png", "a red fox")]
    for name, _ in rows:
        picture(tmp_path / name)
    text = (
        "".join(json.dumps({"file_name": n, "text": c}) + "\n" for n, c in rows)
        if kind == "jsonl"
        else "file_name,text\n" + "".join(f"{n},{c}\n" for n, c in rows)
    )
    (tmp_path / f"metadata.{kind}").write_text(text, encoding="utf-8")
    assert found(tmp_path) == [(Path(name).name, caption, 1) for name, caption in rows]
    assert found(tmp_path / f"metadata.{kind}") == found(tmp_path)
    assert read_training(tmp_path).notes == (
        f"{tmp_path}: named more than once: 1 of the pictures (1.png)",
    )


def test_a_table_of_pictures_somewhere(tmp_path):
    picture(tmp_path / "photos" / "1.png")
    table = tmp_path / "table.csv"
    table.write_text("caption,image\na red fox,photos/1.png\n", encoding="utf-8")
    assert found(table) == [("1.png", "a red fox", 1)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a red fox,2.png\n", r"row 1 names '2.png', which is not there"),
        ("a red fox,../../outside.png\n", r"row 1 names '../../outside.png', outside of"),
        ("a red fox,\n", r"row 1 names no picture"),
    ],
)
def test_a_table_that_names_what_cannot_be_used(tmp_path, rows, said):
    (tmp_path / "table.csv").write_text(f"caption,image\n{rows}", encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_training(tmp_path / "table.csv")


def test_no_pictures_at_all(tmp_path):
    (tmp_path / "readme.txt").write_text("words", encoding="utf-8")
    with pytest.raises(InputError, match="holds no pictures"):
        read_training(tmp_path)
    with pytest.raises(InputError, match="no training pictures"):
        read_training(tmp_path / "missing")


def test_of_many_pictures_some_are_drawn_and_that_is_said(tmp_path):
    for k in range(12):
        picture(tmp_path / f"{k:02}.png")
    training = read_training(tmp_path, most=5)
    assert len(training) == 5
    assert training.notes[0] == f"{tmp_path}: 5 of 12 training pictures are taken, drawn by chance"
    assert training == read_training(tmp_path, most=5)
    assert training != read_training(tmp_path, most=5, seed=1)
    names = [p.path.name for p in training]
    assert names == sorted(names)


def test_a_caption_that_is_no_text_is_named(tmp_path):
    picture(tmp_path / "1.png")
    (tmp_path / "1.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match=r"1.txt is not UTF-8 text"):
        read_training(tmp_path)


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    picture(tmp_path / "1.png")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert found(tmp_path) == [("1.png", None, 1)]
