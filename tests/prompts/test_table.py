"""A table of captions (`PromptTable`) is a value that counts what it leaves out."""

import pytest
from _captions_of import save, texts, written_csv

from findnemo.errors import InputError
from findnemo.prompts import read_prompts


def test_whitespace_and_nul_go_and_all_else_stays(tmp_path):
    raw = "\u3000 \ta \0 fox\x01 \u200b\r\n "
    assert texts(read_prompts([raw])) == ["a  fox\x01 \u200b"]
    assert texts(read_prompts(save(tmp_path / "t.csv", written_csv([raw], ";")))) == [
        "a  fox\x01 \u200b"
    ]


def test_null_is_missing_and_nan_as_text_is_not():
    table = read_prompts([None, float("nan"), "nan", "NULL", "\0", "  "])
    assert texts(table) == ["nan", "NULL"]
    assert table.missing == (1, 2, 5, 6)


def test_table_is_a_value():
    table = read_prompts(["a", "b", "c", "a"])
    assert len(table) == 3
    assert [prompt.row for prompt in table] == [1, 2, 3]
    assert table.limit(None) == table
    assert texts(table.limit(2)) == ["a", "b"]
    assert table.limit(2).duplicates == ((4, 1),)
    assert len(table.limit(99)) == 3
    with pytest.raises(InputError, match="a limit of 0 leaves no prompt: give 1 or more"):
        table.limit(0)


def test_warnings_count_and_show_the_first_rows():
    assert read_prompts(["a", "b"]).warnings() == ()
    assert read_prompts(["a", "", *["a"] * 7]).warnings() == (
        "captions in memory: skipped 1 row without caption (row 2).",
        (
            "captions in memory: skipped 7 rows with the caption of an earlier row (row 3 repeats"
            " row 1, row 4 repeats row 1, row 5 repeats row 1, row 6 repeats row 1, row 7 repeats"
            " row 1, and 2 more)."
        ),
    )
