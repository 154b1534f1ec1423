"""Every format gives the same captions, and nothing is lost in silence."""

import csv
import json
import os
from pathlib import Path

import polars as pl
import pytest
from _captions_of import CAPTIONS, ONE_LINE, save, texts, written_csv
from hypothesis import example, given, settings
from hypothesis import strategies as st

from findnemo.errors import InputError
from findnemo.prompts import DELIMITERS, Prompt, read_prompts

SHARED = Path(os.environ.get("FINDNEMO_SHARED", Path(__file__).parents[3] / "shared")) / "prompts"


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_csv_with_any_delimiter(tmp_path, delimiter, columns):
    path = save(tmp_path / "captions.csv", written_csv(CAPTIONS, delimiter, columns))
    assert texts(read_prompts(path)) == CAPTIONS


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_csv_with_any_line_end(tmp_path, newline):
    path = save(
        tmp_path / "captions.csv",
        written_csv(CAPTIONS, ";", lineterminator=newline, quoting=csv.QUOTE_ALL),
    )
    assert texts(read_prompts(path)) == CAPTIONS


def test_tsv_and_upper_case_suffix(tmp_path):
    assert (
        texts(read_prompts(save(tmp_path / "captions.TSV", written_csv(CAPTIONS, "\t"))))
        == CAPTIONS
    )


def test_parquet(tmp_path):
    rows = {
        "index": range(8),
        "Text": [*CAPTIONS, None],
        "image": [{"bytes": b"1", "path": "a.png"}] * 8,
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "captions.parquet")
    table = read_prompts(tmp_path / "captions.parquet")
    assert texts(table) == CAPTIONS
    assert table.missing == (8,)
    assert table.prompts[0].image is None  # a struct with pixels is not a path


def test_parquet_with_categories_and_numbered_types(tmp_path):
    frame = pl.DataFrame(
        {"kind": [0, 1], "prompt": ["a fox", "an owl"], "image_path": ["a.png", None]}
    )
    frame.with_columns(pl.col("prompt").cast(pl.Categorical)).write_parquet(
        tmp_path / "captions.parquet"
    )
    assert read_prompts(tmp_path / "captions.parquet").prompts == (
        Prompt("a fox", 1, "0", "a.png"),
        Prompt("an owl", 2, "1", None),
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_lines(tmp_path, suffix, ascii_only):
    rows = [json.dumps({"n": 1, "Prompt": text}, ensure_ascii=ascii_only) for text in CAPTIONS]
    assert texts(read_prompts(save(tmp_path / f"captions{suffix}", "\n".join(rows)))) == CAPTIONS


def test_json_lines_of_strings_and_gaps(tmp_path):
    path = save(
        tmp_path / "captions.jsonl",
        '"a fox"\r\n\r\n{"caption": null}\n{}\n"an owl"\nNaN\nnull\n\n\n',
    )
    table = read_prompts(path)
    assert [(prompt.text, prompt.row) for prompt in table] == [("a fox", 1), ("an owl", 5)]
    assert table.missing == (2, 3, 4, 6, 7)


def test_json_list(tmp_path):
    rows = [{"caption": text, "type": "VM"} for text in CAPTIONS[1:]]
    table = read_prompts(
        save(tmp_path / "captions.json", json.dumps([CAPTIONS[0], *rows], indent=1))
    )
    assert texts(table) == CAPTIONS
    assert [prompt.type for prompt in table] == [None, *["VM"] * 6]


@pytest.mark.parametrize("name", ["captions.txt", "captions", "captions.v2"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_text_has_a_caption_on_each_line(tmp_path, name, newline):
    assert texts(read_prompts(save(tmp_path / name, newline.join(["", *ONE_LINE, ""])))) == ONE_LINE


def test_text_counts_lines(tmp_path):
    table = read_prompts(save(tmp_path / "captions.txt", "\na fox\n \nan owl\na fox\n\n"))
    assert [prompt.row for prompt in table] == [2, 4]
    assert (table.missing, table.duplicates) == ((1, 3), ((5, 2),))


@settings(max_examples=150, deadline=None, database=None)
@given(
    captions=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\uffff"))
    ),
    delimiter=st.sampled_from(DELIMITERS),
    columns=st.sampled_from([1, 3]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
@example(['"', "a,b;c\td|e", "\r", "x\r\ny", '"quoted"', "\u2028"], ";", 1, csv.QUOTE_MINIMAL)
def test_csv_reads_back_what_was_written(tmp_path_factory, captions, delimiter, columns, quoting):
    path = tmp_path_factory.getbasetemp() / "property.csv"
    save(path, written_csv(captions, delimiter, columns, quoting=quoting))
    stripped = [caption.strip() for caption in captions]
    distinct = list(dict.fromkeys(filter(None, stripped)))
    if not distinct:
        with pytest.raises(InputError, match="no caption in"):
            read_prompts(path)
        return
    table = read_prompts(path)
    assert texts(table) == distinct
    assert [stripped[prompt.row - 1] for prompt in table] == distinct
    assert len(table) + len(table.missing) + len(table.duplicates) == len(captions)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no published prompt tables in {SHARED}")
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("memorized_laion_prompts", 500),
        ("unmemorized_laion_prompts", 500),
        ("coco2014_val_10000", 10_000),
    ],
)
def test_published_tables_read_as_polars_reads_them(name, rows):
    path = SHARED / f"{name}.csv"
    frame = pl.read_csv(path, separator=";", infer_schema=False)
    table = read_prompts(path)
    assert frame.height == rows == len(table) + len(table.missing) + len(table.duplicates)
    for prompt in table:
        expected = frame.row(prompt.row - 1, named=True)
        assert prompt.text == expected["Caption"].strip()
        assert (prompt.type, prompt.image) == (expected.get("type"), expected["URL"] or None)
    for row, first in table.duplicates:
        assert frame["Caption"][row - 1].strip() == frame["Caption"][first - 1].strip()
    assert all(not (frame["Caption"][row - 1] or "").strip() for row in table.missing)
