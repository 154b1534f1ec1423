"""The columns of captions, types and images (`columns_of`)."""

import polars as pl
import pytest
from _captions_of import save, texts

from findnemo.errors import InputError
from findnemo.prompts import Prompt, read_prompts


@pytest.mark.parametrize("name", ["caption", "PROMPT", "Text", "captions", " prompts "])
def test_caption_columns(tmp_path, name):
    assert texts(read_prompts(save(tmp_path / "t.csv", f"id,{name}\n1,a fox\n"))) == ["a fox"]


@pytest.mark.parametrize("kind", ["type", "Kind", "memorization"])
@pytest.mark.parametrize("image", ["URL", "image", "image_url", "image_path"])
def test_type_and_image_columns(tmp_path, kind, image):
    path = save(tmp_path / "t.csv", f"{image};caption;{kind}\n a.png ;a fox;VM\n;an owl;\n")
    assert read_prompts(path).prompts == (Prompt("a fox", 1, "VM", "a.png"), Prompt("an owl", 2))


def test_column_overrides(tmp_path):
    path = save(tmp_path / "t.csv", "Caption;title;TITLE\na;b;c\n")
    assert texts(read_prompts(path, column="TITLE")) == ["c"]
    assert texts(read_prompts(path, column="title")) == ["b"]
    assert texts(read_prompts(path, column="CAPTION")) == ["a"]


def test_column_decides_the_delimiter(tmp_path):
    path = save(tmp_path / "t.csv", "n, of many, or few;Alt text\n1;a fox, red\n")
    assert texts(read_prompts(path, column="alt text")) == ["a fox, red"]


def test_column_that_is_not_there(tmp_path):
    path = save(tmp_path / "t.csv", "caption,url\na,b\n")
    with pytest.raises(
        InputError, match="no column 'Titel': the columns are 'caption', 'url'; choose one"
    ):
        read_prompts(path, column="Titel")
    with pytest.raises(
        InputError, match="no column 'Titel': there are no columns; leave --column out"
    ):
        read_prompts(["a fox"], column="Titel")


def test_parquet_without_captions(tmp_path):
    pl.DataFrame({"title": ["a"], "n": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"no caption column .*: the columns are 'title', 'n'"):
        read_prompts(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="row 1: 1 is int, not text"):
        read_prompts(tmp_path / "t.parquet", column="n")
